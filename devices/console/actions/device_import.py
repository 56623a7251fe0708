"""What Admins do with imports: a file of devices in, keys out."""

from pathlib import PurePath
from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest

from devices.choices import ImportFormat, ImportMode
from devices.import_files import ReceivedFile, keys_file, take_file_in
from devices.models import DeviceImport
from devices.services import imports
from devices.services.imports import ImportOptions
from devices.spreadsheets import SAVE_AS
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm, EmptyForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import acting_person, go_to
from hotswap.common.console.text import in_bytes
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.pluralize import counted
from hotswap.common.roles import Role

SUFFIXES = {
    ".csv": ImportFormat.CSV,
    ".tsv": ImportFormat.CSV,
    ".txt": ImportFormat.CSV,
    ".ndjson": ImportFormat.NDJSON,
    ".jsonl": ImportFormat.NDJSON,
}


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
    rate = "IMPORTS_PER_MINUTE"
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
    needs_proof = True
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
