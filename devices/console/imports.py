"""The console's pages of imports: a file of devices in, results and keys out."""

from pathlib import PurePath
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from unfold.decorators import display

from devices.api.imports import ReceivedFile, keys_file, take_file_in
from devices.api.spreadsheets import SAVE_AS
from devices.choices import (
    ACTIONS,
    OPEN_IMPORTS,
    ImportFormat,
    ImportMode,
    ImportStatus,
    LineOutcome,
)
from devices.models import DeviceImport
from devices.services import imports
from devices.services.imports import ImportOptions
from hotswap.common.console.actions.base import Action
from hotswap.common.console.badges import DONE, FAILED, MOVING, NOT_STARTED, badge
from hotswap.common.console.forms import ConsoleForm, EmptyForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import READING, acting_person, go_to
from hotswap.common.console.text import age, in_bytes
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.roles import Role
from hotswap.common.words import counted

SHOWN_LINES = 100
SUFFIXES = {
    ".csv": ImportFormat.CSV,
    ".tsv": ImportFormat.CSV,
    ".txt": ImportFormat.CSV,
    ".ndjson": ImportFormat.NDJSON,
    ".jsonl": ImportFormat.NDJSON,
}
IMPORT_BADGES = {
    ImportStatus.PENDING: (NOT_STARTED, "schedule"),
    ImportStatus.RUNNING: (MOVING, "sync"),
    ImportStatus.COMPLETED: (DONE, "check"),
    ImportStatus.FAILED: (FAILED, "error"),
}


def import_badge(batch: DeviceImport) -> SafeString:
    tone, icon = IMPORT_BADGES[ImportStatus(batch.status)]
    return badge(batch.status, tone, icon)


class ImportForm(ConsoleForm):
    mode = forms.ChoiceField(
        label="Devices that are registered already",
        choices=ImportMode.choices,
        required=False,
        initial=ImportMode.CREATE,
        help_text="Change them: empty cells leave what there is",
    )
    dryRun = forms.BooleanField(
        label="Show first what it would change", required=False, initial=True
    )
    acknowledge = forms.BooleanField(
        label="It may change whom deployments to come reach", required=False
    )
    file = forms.FileField(
        widget=forms.FileInput(
            attrs={"class": "hs-file", "accept": ",".join(SUFFIXES)}
        ),
        help_text="CSV (.csv, .tsv, .txt) or JSON lines (.ndjson, .jsonl), in UTF-8; "
        "save a workbook as CSV UTF-8 first",
    )

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if PurePath(file.name).suffix.lower() not in SUFFIXES:
            raise forms.ValidationError(
                f"The name must end in one of {', '.join(SUFFIXES)}: {SAVE_AS} if it "
                "is a workbook."
            )
        if file.size > settings.IMPORT_MAX_BYTES:
            raise forms.ValidationError(
                f"A file may have {in_bytes(settings.IMPORT_MAX_BYTES)} at most."
            )
        return file


class ImportDevices(Action):
    name = "upload"
    label = "Import devices"
    icon = "upload_file"
    tone = "primary"
    role = Role.ADMIN
    is_of_list = True
    is_dialog = False
    form_class = ImportForm
    template = "console/import_new.html"

    def serve(self, admin: ConsoleAdmin, request: HttpRequest, obj: Any) -> Any:
        user = acting_person(request)
        if request.method != "POST" or not user.may(self.role):
            return super().serve(admin, request, obj)
        form = ImportForm(request.POST, request.FILES)
        if form.is_valid():
            file = form.cleaned_data["file"]
            suffix = PurePath(file.name).suffix.lower()
            try:
                batch = take_file_in(
                    actor=user,
                    received=ReceivedFile(file.file, SUFFIXES[suffix], ""),
                    options=ImportOptions(
                        mode=ImportMode(form.cleaned_data["mode"] or ImportMode.CREATE),
                        is_dry_run=form.cleaned_data["dryRun"],
                        is_acknowledged=form.cleaned_data["acknowledge"],
                    ),
                )
            except HotSwapError as error:
                form.refuse(error)
            else:
                return go_to(request, admin.page_url(batch))
        return self.show(admin, request, obj, form)


class ApplyImport(Action):
    name = "apply"
    label = "Apply"
    icon = "done_all"
    tone = "primary"
    role = Role.ADMIN
    form_class = EmptyForm

    def applies(self, obj: DeviceImport) -> bool:
        return obj.may_be_applied and obj.created + obj.updated > 0

    def notes(self, obj: DeviceImport) -> tuple[str, ...]:
        return (
            (
                f"{counted(obj.created, 'device')} would be registered and "
                f"{obj.updated:,} changed, by the same file."
            ),
            (
                "What has changed since the dry run is judged anew; lines that were "
                "rejected are tried again."
            ),
        )

    def execute(self, user: User, obj: DeviceImport, given: dict[str, Any]) -> str:
        imports.apply_import(actor=user, import_id=obj.pk)
        return "The file is being imported."

    def next_url(self, admin: ConsoleAdmin, obj: Any) -> str:
        obj.refresh_from_db()
        return admin.page_url(obj.applied_as)


class DownloadKeys(Action):
    name = "keys"
    label = "Download keys"
    icon = "key"
    tone = "primary"
    role = Role.ADMIN
    is_dialog = False
    form_class = EmptyForm

    def applies(self, obj: DeviceImport) -> bool:
        return obj.keys_end_at is not None and obj.created > 0

    def notes(self, obj: DeviceImport) -> tuple[str, ...]:
        return (
            (
                f"A CSV file with the keys of {counted(obj.created, 'device')}"
                ". If the download "
                "breaks off, it can be repeated for 15 minutes; then the keys are "
                "erased, and only digests of them are left."
            ),
        )

    def serve(self, admin: ConsoleAdmin, request: HttpRequest, obj: Any) -> Any:
        user = acting_person(request)
        if request.method != "POST" or not user.may(self.role):
            return super().serve(admin, request, obj)
        form = EmptyForm(request.POST)
        form.is_valid()
        try:
            return keys_file(user, obj.pk)
        except HotSwapError as error:
            form.refuse(error)
            return self.show(admin, request, obj, form)


class EraseKeys(Action):
    name = "erase-keys"
    label = "Erase keys"
    icon = "delete"
    tone = "danger"
    role = Role.ADMIN
    form_class = EmptyForm

    def applies(self, obj: DeviceImport) -> bool:
        return obj.keys_end_at is not None and obj.created > 0

    def notes(self, obj: DeviceImport) -> tuple[str, ...]:
        if obj.keys_fetched_at is None:
            return (
                (
                    f"Nobody has downloaded them: {counted(obj.created, 'device')}"
                    " would "
                    "need a new key. This cannot be undone."
                ),
            )
        return ("They were downloaded. They cannot be downloaded again after this.",)

    def execute(self, user: User, obj: DeviceImport, given: dict[str, Any]) -> str:
        imports.erase_keys(actor=user, import_id=obj.pk)
        return "The keys are erased."


@admin.register(DeviceImport)
class DeviceImportAdmin(ConsoleAdmin):
    list_name = "Imports"
    console_actions = (ImportDevices, ApplyImport, DownloadKeys, EraseKeys)
    page_template = "console/import.html"
    empty_words = (
        "Nothing was imported in the last 30 days.",
        "Many devices are registered at once from a CSV file or from JSON lines.",
    )
    list_display = (
        "since",
        "by",
        "kind",
        "state",
        "lines",
        "made",
        "altered",
        "refused",
    )
    ordering = ("-created_at",)

    def has_view_permission(
        self, request: HttpRequest, obj: Model | None = None
    ) -> bool:
        return acting_person(request).may(Role.ADMIN)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeviceImport]:
        return DeviceImport.objects.select_related("requested_by")

    @display(description="Started", ordering="created_at")
    def since(self, batch: DeviceImport) -> SafeString:
        return age(batch.created_at)

    @display(description="By")
    def by(self, batch: DeviceImport) -> str:
        return batch.requested_by.username if batch.requested_by else "–"

    @display(description="Status")
    def state(self, batch: DeviceImport) -> SafeString:
        return import_badge(batch)

    @display(description="Mode")
    def kind(self, batch: DeviceImport) -> str:
        return f"{batch.mode}, dry run" if batch.is_dry_run else batch.mode

    @display(description="Updated")
    def altered(self, batch: DeviceImport) -> str:
        return f"{batch.updated:,}"

    @display(description="Lines")
    def lines(self, batch: DeviceImport) -> str:
        return f"{batch.total:,}"

    @display(description="Created")
    def made(self, batch: DeviceImport) -> str:
        return f"{batch.created:,}"

    @display(description="Rejected")
    def refused(self, batch: DeviceImport) -> str:
        return f"{batch.rejected:,}"

    def more_urls(self) -> list[URLPattern]:
        return [
            path(
                "<path:object_id>/live/",
                self.protected(self.live_view),
                name=self.url_name("live"),
            )
        ]

    def live_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Render the moving part of the page; when it is done, the page anew."""
        if request.method not in READING:
            return HttpResponse(status=405, headers={"Allow": ", ".join(READING)})
        if not self.has_view_permission(request):
            return HttpResponse(status=403)
        batch = self.found(request, object_id)
        headers = {"Cache-Control": "no-store"}
        if batch.status not in OPEN_IMPORTS:
            # The buttons for the keys lie outside of the moving part.
            headers["HX-Refresh"] = "true"
        return TemplateResponse(
            request,
            "console/import_live.html",
            {"item": batch, **self.page_context(request, batch)},
            headers=headers,
        )

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        rejected = obj.lines.filter(outcome=LineOutcome.REJECTED).order_by("line")
        differing = obj.lines.filter(
            outcome__in=[LineOutcome.CREATED, LineOutcome.UPDATED]
        ).order_by("line")
        total = max(obj.total, 1)
        return {
            "status": import_badge(obj),
            "is_running": obj.status in OPEN_IMPORTS,
            "live_url": self.url("live", obj.pk),
            "started": age(obj.created_at),
            "finished": age(obj.finished_at),
            "keys_end": age(obj.keys_end_at) if obj.keys_end_at else "",
            "percent": 100 * obj.done // total,
            "segments": [
                {
                    "tone": tone,
                    "width": 100 * number / total,
                    "number": number,
                    "word": word,
                }
                for tone, number, word in (
                    (DONE, obj.created, "created"),
                    (MOVING, obj.updated, "updated"),
                    (NOT_STARTED, obj.unchanged, "unchanged"),
                    (FAILED, obj.rejected, "rejected"),
                )
            ],
            "differing": [
                {"line": line, "action": ACTIONS[LineOutcome(line.outcome)].value}
                for line in differing[:SHOWN_LINES]
            ]
            if obj.is_dry_run
            else [],
            "differing_count": obj.created + obj.updated,
            "applied_url": self.page_url(obj.applied_as) if obj.applied_as else "",
            "lines": list(rejected[:SHOWN_LINES]),
            "shown": SHOWN_LINES,
        }
