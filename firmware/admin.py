"""The console's pages of firmware and of the device models it is built for."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import reverse
from django.utils.datastructures import MultiValueDict
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.csrf import csrf_protect
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display

import firmware.admin_approvals
import firmware.admin_keys  # noqa: F401  (both register pages)
from firmware.api.serializers import (
    DeviceModelChangesInput,
    DeviceModelInput,
    FirmwareInput,
)
from firmware.api.uploads import FILE_FIELD, receive_upload
from firmware.choices import DELETABLE, FirmwareStatus
from firmware.model_field import offer_models
from firmware.models import DeviceModel, Firmware
from firmware.selectors import (
    FirmwareUse,
    firmware_history,
    firmware_incidents,
    firmware_use,
    name_actors,
)
from firmware.services import registry
from firmware.services.registry import UploadOutcome
from firmware.storage import StagedImage
from firmware.versions import VersionScheme
from hotswap.common.console.actions.base import Action, Button, link_button
from hotswap.common.console.badges import DONE, FAILED, NOT_STARTED, WAITS, badge
from hotswap.common.console.forms import (
    CommentForm,
    ConsoleForm,
    EmptyForm,
    ReasonForm,
    error_lines,
)
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import acting_person, go_to
from hotswap.common.console.text import age, in_bytes
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.roles import Role
from hotswap.common.words import counted

FIRMWARE_BADGES = {
    FirmwareStatus.DRAFT: (WAITS, "pending_actions"),
    FirmwareStatus.APPROVED: (DONE, "check"),
    FirmwareStatus.REJECTED: (FAILED, "close"),
    FirmwareStatus.DEPRECATED: (NOT_STARTED, "inventory_2"),
}
WHAT_TO_DO_ABOUT_DAMAGE = (
    "It is offered to no device any more. Upload the same image again under the same "
    "version, which repairs it; or restore the file from your backup and have it "
    "checked."
)
SHOWN_HISTORY = 50
SAID_OF_UPLOADS = {
    UploadOutcome.NEW: "is uploaded and signed",
    UploadOutcome.KNOWN: "is known: these are its bytes",
    UploadOutcome.REPAIRED: "is repaired: its damaged image was replaced by this one",
}


def firmware_badge(firmware: Firmware) -> SafeString:
    tone, icon = FIRMWARE_BADGES[FirmwareStatus(firmware.status)]
    return badge(firmware.status, tone, icon)


def incidents_badge(incidents: object) -> SafeString:
    """Show what went wrong with a firmware: `rolled back twice, 0 of 31 proved`."""
    shown = badge(str(incidents), FAILED, "history")
    return format_html('<span class="hs-wraps">{}</span>', shown)


def _of_model(firmware: Firmware) -> str:
    count = firmware.model.device_set.count()
    running = firmware.model.device_set.filter(
        firmware_checksum=firmware.sha256
    ).count()
    return (
        f"{counted(count, 'device is', 'devices are')}"
        f" of the model {firmware.model.name}; "
        f"{running:,} of them run this image now."
    )


class ApproveFirmware(Action):
    name = "approve"
    label = "Approve"
    icon = "check"
    tone = "primary"
    role = Role.ADMIN
    form_class = CommentForm

    def applies(self, obj: Firmware) -> bool:
        return obj.status == FirmwareStatus.DRAFT

    def blocked_reason(self, user: User, obj: Firmware) -> str:
        if obj.damaged_at is not None:
            return "the stored image is damaged"
        if settings.FOUR_EYES and obj.uploaded_by_id == user.pk:
            return "you uploaded it: somebody else approves"
        return ""

    def notes(self, obj: Firmware) -> tuple[str, ...]:
        return (
            _of_model(obj),
            (
                "Approving lets deployments install it; nothing is installed by this. "
                "The stored image is read and compared first, and the approval is "
                f"bound to SHA-256 {obj.sha256[:16]}…"
            ),
        )

    def execute(self, user: User, obj: Firmware, given: dict[str, Any]) -> str:
        registry.approve_firmware(
            actor=user, firmware_id=obj.pk, comment=given["comment"]
        )
        return f"{obj} is approved: it can be deployed."


class RejectFirmware(Action):
    name = "reject"
    label = "Reject"
    icon = "close"
    tone = "danger"
    role = Role.ADMIN

    def applies(self, obj: Firmware) -> bool:
        return obj.status == FirmwareStatus.DRAFT

    def notes(self, obj: Firmware) -> tuple[str, ...]:
        return (
            _of_model(obj),
            "Rejecting is final: a corrected image needs a new version.",
        )

    def execute(self, user: User, obj: Firmware, given: dict[str, Any]) -> str:
        registry.reject_firmware(
            actor=user, firmware_id=obj.pk, comment=given["reason"]
        )
        return f"{obj} is rejected."


class DeprecateForm(ReasonForm):
    cancelDeployments = forms.BooleanField(
        label="Recall it: cancel the deployments of it that wait or run",
        required=False,
        help_text="What has not begun to install stops, what has finishes.",
    )


class DeprecateFirmware(Action):
    name = "deprecate"
    label = "Deprecate"
    icon = "inventory_2"
    tone = "danger"
    role = Role.ADMIN
    form_class = DeprecateForm

    def applies(self, obj: Firmware) -> bool:
        if obj.status == FirmwareStatus.DEPRECATED:
            return bool(firmware_use(obj).cancellable)
        return obj.status == FirmwareStatus.APPROVED

    def notes(self, obj: Firmware) -> tuple[str, ...]:
        return (
            *use_in_words(firmware_use(obj)),
            (
                "No new deployment can use it, and scheduled ones fail at their time. "
                "Devices that run it keep it."
            ),
        )

    def execute(self, user: User, obj: Firmware, given: dict[str, Any]) -> str:
        _, cancelled = registry.deprecate_firmware(
            actor=user,
            firmware_id=obj.pk,
            reason=given["reason"],
            cancel_deployments=given["cancelDeployments"],
        )
        if cancelled:
            return (
                f"{obj} is recalled: "
                f"{counted(len(cancelled), 'deployment is', 'deployments are')}"
                " cancelled."
            )
        return f"{obj} is deprecated."


class ReinstateFirmware(Action):
    name = "reinstate"
    label = "Reinstate"
    icon = "settings_backup_restore"
    role = Role.ADMIN

    def applies(self, obj: Firmware) -> bool:
        return obj.status == FirmwareStatus.DEPRECATED

    def blocked_reason(self, user: User, obj: Firmware) -> str:
        if obj.damaged_at is not None:
            return "the stored image is damaged"
        if obj.signature_revoked_at is not None:
            return "its signing key was revoked: sign the image again"
        if settings.FOUR_EYES and obj.uploaded_by_id == user.pk:
            return "you uploaded it: somebody else reinstates it"
        return ""

    def notes(self, obj: Firmware) -> tuple[str, ...]:
        return (
            *use_in_words(firmware_use(obj)),
            (
                "New deployments can use it again, under the approval of before. "
                "Deployments that were cancelled stay cancelled."
            ),
        )

    def execute(self, user: User, obj: Firmware, given: dict[str, Any]) -> str:
        registry.reinstate_firmware(
            actor=user, firmware_id=obj.pk, reason=given["reason"]
        )
        return f"{obj} is approved again: it can be deployed."


class DeleteFirmware(Action):
    name = "delete"
    label = "Delete"
    icon = "delete"
    tone = "danger"
    role = Role.ADMIN
    form_class = EmptyForm

    def applies(self, obj: Firmware) -> bool:
        return obj.status in DELETABLE

    def notes(self, obj: Firmware) -> tuple[str, ...]:
        return (
            _of_model(obj),
            (
                "The image is removed with all that is known of it but the audit "
                "trail, and the version is free again."
            ),
        )

    def execute(self, user: User, obj: Firmware, given: dict[str, Any]) -> str:
        registry.delete_firmware(actor=user, firmware_id=obj.pk)
        return f"{obj} is deleted."

    def next_url(self, admin: ConsoleAdmin, obj: Any) -> str:
        return admin.list_url()


def use_in_words(use: FirmwareUse) -> tuple[str, ...]:
    """Say how many devices run a firmware, and what is under way with it."""
    under_way = ", ".join(f"{each.name} ({each.status})" for each in use.deployments)
    return (
        f"Devices that run it now: {use.device_count:,}.",
        f"Deployments under way: {under_way}."
        if under_way
        else "No deployment of it is under way.",
    )


class CheckFirmware(Action):
    name = "verify"
    label = "Check the stored image"
    icon = "fact_check"
    role = Role.ADMIN
    form_class = EmptyForm

    def notes(self, obj: Firmware) -> tuple[str, ...]:
        return (
            (
                "The stored image is read as a whole and compared with its SHA-256. "
                "Damage is noted; damage that was repaired since is cleared."
            ),
        )

    def execute(self, user: User, obj: Firmware, given: dict[str, Any]) -> str:
        checked = registry.verify_firmware(actor=user, firmware_id=obj.pk)
        if checked.damaged_at is None:
            return f"The stored image of {obj} is whole."
        return f"The stored image of {obj} is damaged: {checked.damage}"


class UploadForm(ConsoleForm):
    """The fields of an upload; what they may hold is said by the API's serializer."""

    model = forms.ChoiceField()
    version = forms.CharField(
        help_text="In the version scheme of its model; semver: 2.5.0"
    )
    securityVersion = forms.IntegerField(
        label="Security version",
        min_value=0,
        required=False,
        help_text="A device never goes below the highest that it has run. Empty: 0",
    )
    rebootRequired = forms.BooleanField(
        label="Devices reboot to run it", required=False, initial=True
    )
    requestComment = forms.CharField(
        label="To the approver",
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    releaseNotes = forms.CharField(
        label="Release notes",
        required=False,
        widget=forms.Textarea(attrs={"rows": 5}),
    )
    checksum = forms.CharField(
        label="SHA-256",
        required=False,
        max_length=64,
        help_text="As your build computed it: another image is not taken. Optional",
    )
    file = forms.FileField(
        label="Image",
        widget=forms.FileInput(attrs={"class": "hs-file"}),
        help_text="At most 100 MiB. It is hashed, encrypted and signed on arrival.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        models = DeviceModel.objects.values_list("name", "version_scheme")
        offer_models(
            self.fields["model"],
            (
                (name, name if scheme == VersionScheme.SEMVER else f"{name} ({scheme})")
                for name, scheme in models
            ),
        )
        self.fields["file"].widget.attrs["data-max-bytes"] = settings.FIRMWARE_MAX_BYTES


class UploadFirmware(Action):
    """Take an image as the API does: hashed and encrypted while it arrives.

    The check against forged requests reads the form, and so would store the image in a
    file of its own. It runs here, after the receiver, on the token that came along.
    """

    name = "upload"
    label = "Upload firmware"
    icon = "upload"
    tone = "primary"
    role = Role.ADMIN
    is_of_list = True
    is_dialog = False
    is_csrf_checked_inside = True
    form_class = UploadForm
    template = "console/upload.html"

    def serve(self, admin: ConsoleAdmin, request: HttpRequest, obj: Any) -> Any:
        if request.method != "POST":
            return super().serve(admin, request, obj)
        user = acting_person(request)
        if not user.may(self.role):
            raise PermissionDenied
        fields: dict[str, str] = {}
        problems: list[str] = []
        errors: Any = {}
        try:
            with receive_upload(Request(request)) as (fields, staged):
                refusal = self._check_origin(request, fields)
                if refusal is not None:
                    return refusal
                firmware, outcome = self._register(user, fields, staged)
        except ValidationError as error:
            errors = error.detail
        except HotSwapError as error:
            errors = {
                part.pointer.removeprefix("/"): [part.detail] for part in error.errors
            }
            problems = [] if errors else [error.detail]
        except APIException as error:
            problems = [str(error.detail)]
        else:
            messages.success(request, f"{firmware} {SAID_OF_UPLOADS[outcome]}.")
            return go_to(request, admin.page_url(firmware))
        form = UploadForm(
            {**fields, "rebootRequired": fields.get("rebootRequired") == "true"}
        )
        form.is_valid()
        form.errors.clear()
        if isinstance(errors, dict):
            form.take_errors(errors)
        else:
            problems += error_lines(ValidationError(errors))
        for problem in problems:
            form.add_error(None, problem)
        if "HX-Request" in request.headers:
            # The page keeps its form, the chosen file included; only errors travel.
            return HttpResponse(
                format_html(
                    '<div class="hs-banner hs-red" role="alert"><strong>Not uploaded.'
                    "</strong> {}</div>",
                    " ".join(
                        f"{form[name].label}: {text}"
                        if name in form.fields
                        else str(text)
                        for name, texts in form.errors.items()
                        for text in texts
                    ),
                )
            )
        return self.show(admin, request, obj, form)

    @staticmethod
    def _check_origin(
        request: HttpRequest, fields: dict[str, str]
    ) -> HttpResponse | None:
        """Run Django's check on the token of the form; None if it may go on."""
        request.META["HTTP_X_CSRFTOKEN"] = fields.pop("csrfmiddlewaretoken", "")
        request._post = QueryDict()  # type: ignore[attr-defined]
        request._files = MultiValueDict()  # type: ignore[attr-defined]
        allowed = HttpResponse()
        answer = csrf_protect(lambda _: allowed)(request)
        return None if answer is allowed else answer

    @staticmethod
    def _register(
        user: User, fields: dict[str, str], staged: StagedImage | None
    ) -> tuple[Firmware, UploadOutcome]:
        # A box that is not ticked does not travel, and an empty text means none.
        fields["rebootRequired"] = str("rebootRequired" in fields).lower()
        for name in ("securityVersion", "checksum"):
            if not fields.get(name, "").strip():
                fields.pop(name, None)
        if "checksum" in fields:
            # Copied with the space that stands around it.
            fields["checksum"] = fields["checksum"].strip()
        serializer = FirmwareInput(data=fields)
        serializer.is_valid(raise_exception=True)
        if staged is None:
            raise ValidationError({FILE_FIELD: ["is missing"]}, code="required")
        if staged.size == 0:
            raise ValidationError({FILE_FIELD: ["is empty"]}, code="empty")
        given = dict(serializer.validated_data)
        return registry.register_firmware(
            actor=user, model_name=given.pop("model"), staged=staged, **given
        )


class DamagedFilter(RadioFilter):
    title = "damage"
    parameter_name = "damaged"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "damaged in the store")]

    def queryset(
        self, request: Any, queryset: QuerySet[Firmware]
    ) -> QuerySet[Firmware]:
        if self.value() == "yes":
            return queryset.filter(damaged_at__isnull=False)
        return queryset


class StatusFilter(RadioFilter):
    title = "status"
    parameter_name = "status__exact"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return list(FirmwareStatus.choices)

    def queryset(
        self, request: Any, queryset: QuerySet[Firmware]
    ) -> QuerySet[Firmware]:
        return queryset.filter(status=self.value()) if self.value() else queryset


@admin.register(Firmware)
class FirmwareAdmin(ConsoleAdmin):
    empty_words = (
        "There is no firmware.",
        "Upload an image: it is a draft until another Admin approves it.",
    )
    console_actions = (
        UploadFirmware,
        ApproveFirmware,
        RejectFirmware,
        DeprecateFirmware,
        ReinstateFirmware,
        CheckFirmware,
        DeleteFirmware,
    )
    page_template = "console/firmware.html"
    list_display = ("version", "model", "state", "bytes", "signed", "uploader", "since")
    list_select_related = ("model", "key", "uploaded_by", "approved_by")
    list_filter = (StatusFilter, DamagedFilter)
    search_fields = ("version", "model__name", "sha256")
    search_help_text = "Version, model or SHA-256"
    ordering = ("-created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Firmware]:
        return Firmware.objects.select_related(
            *self.list_select_related
        ).prefetch_related("later_signatures__key")

    def buttons(self, user: User, obj: Firmware | None) -> list[Button]:
        found = super().buttons(user, obj)
        if obj is not None and Firmware.objects.deployable().filter(pk=obj.pk).exists():
            launch = reverse("admin:deployments_deployment_launch")
            url = f"{launch}?firmwareId={obj.pk}"
            found.insert(
                0, link_button(user, "Launch", "rocket_launch", url, Role.OPERATOR)
            )
        return found

    def complete(self, rows: list[Any]) -> None:
        incidents = firmware_incidents([row.pk for row in rows])
        for row in rows:
            row.incidents = incidents.get(row.pk)

    @display(description="Status")
    def state(self, firmware: Any) -> SafeString:
        if firmware.incidents is None:
            return self.own_state(firmware)
        return format_html(
            "{} {}", self.own_state(firmware), incidents_badge(firmware.incidents)
        )

    @staticmethod
    def own_state(firmware: Firmware) -> SafeString:
        if firmware.damaged_at is None and firmware.signature_revoked_at is not None:
            held = badge("Held back", FAILED, "block", "its signing key was revoked")
            return format_html("{} {}", firmware_badge(firmware), held)
        if firmware.damaged_at is None:
            return firmware_badge(firmware)
        return format_html(
            '{} {} <span class="hs-hint">{}</span>',
            firmware_badge(firmware),
            badge("Damaged", FAILED, "broken_image", firmware.damage),
            "restore it or upload a new version",
        )

    @display(description="Size", ordering="size")
    def bytes(self, firmware: Firmware) -> str:
        return in_bytes(firmware.size)

    @display(description="Signed with")
    def signed(self, firmware: Firmware) -> SafeString:
        key, _ = firmware.best_signature()
        return format_html('<code class="hs-code">{}</code>', key.key_id)

    @display(description="Uploaded by")
    def uploader(self, firmware: Firmware) -> str:
        return firmware.uploaded_by.username if firmware.uploaded_by else "–"

    @display(description="Age", ordering="-created_at")
    def since(self, firmware: Firmware) -> SafeString:
        return age(firmware.created_at)

    def page_context(self, request: HttpRequest, obj: Firmware) -> dict[str, Any]:
        key, signature = obj.best_signature()
        use = firmware_use(obj)
        return {
            "use": use,
            "incidents": firmware_incidents([obj.pk]).get(obj.pk),
            "deployment_pages": [
                (each, reverse("admin:deployments_deployment_change", args=[each.id]))
                for each in use.deployments
            ],
            "history": name_actors(
                list(firmware_history(obj.pk).order_by("-id")[:SHOWN_HISTORY])
            ),
            "signature": signature,
            "signing_key": key,
            "signing_key_url": reverse(
                "admin:firmware_signingkey_change", args=[key.pk]
            ),
            "status": firmware_badge(obj),
            "of_model": _of_model(obj),
            "size": f"{in_bytes(obj.size)} ({obj.size:,} bytes)",
            "what_to_do": WHAT_TO_DO_ABOUT_DAMAGE,
            "uploaded": age(obj.created_at),
            "approved": age(obj.approved_at),
        }


SECURE_BOOT_HELP = "Updates go only to devices whose last heartbeat reports it"


class VersionSchemeField(forms.ChoiceField):
    """How the versions of a model are written."""

    def __init__(self) -> None:
        super().__init__(
            label="Version scheme",
            choices=[
                (each.value, f"{each}: {each.expected}") for each in VersionScheme
            ],
            initial=VersionScheme.SEMVER.value,
            help_text="It can be changed until the first upload",
        )


class DeviceModelForm(ConsoleForm):
    name = forms.CharField(
        max_length=64, help_text="Letters, digits, dot, hyphen, underscore"
    )
    description = forms.CharField(max_length=500, required=False)
    versionScheme = VersionSchemeField()
    requiresSecureBoot = forms.BooleanField(
        label="Requires secure boot", required=False, help_text=SECURE_BOOT_HELP
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if "name" in cleaned:
            self.check_with(DeviceModelInput, cleaned)
        return cleaned


class DeviceModelChangesForm(ConsoleForm):
    description = forms.CharField(max_length=500, required=False)
    versionScheme = VersionSchemeField()
    requiresSecureBoot = forms.BooleanField(
        label="Requires secure boot", required=False, help_text=SECURE_BOOT_HELP
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        self.check_with(DeviceModelChangesInput, cleaned)
        return cleaned


class CreateDeviceModel(Action):
    name = "create"
    label = "Add device model"
    icon = "add"
    tone = "primary"
    role = Role.ADMIN
    is_of_list = True
    form_class = DeviceModelForm

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        model = registry.create_device_model(
            actor=user,
            name=given["name"],
            description=given["description"],
            requires_secure_boot=given["requiresSecureBoot"],
            version_scheme=VersionScheme(given["versionScheme"]),
        )
        return f"The device model {model} is in the catalogue."


class ChangeDeviceModel(Action):
    name = "edit"
    label = "Edit"
    icon = "edit"
    role = Role.ADMIN
    form_class = DeviceModelChangesForm

    def make_form(self, request: HttpRequest, obj: DeviceModel) -> ConsoleForm:
        start = {
            "description": obj.description,
            "requiresSecureBoot": obj.requires_secure_boot,
            "versionScheme": obj.version_scheme,
        }
        return DeviceModelChangesForm(request.POST or None, initial=start)

    def notes(self, obj: DeviceModel) -> tuple[str, ...]:
        return (
            (
                "A requirement of secure boot counts from the next launch and the next "
                "offer on. Devices that have their order already finish it."
            ),
        )

    def execute(self, user: User, obj: DeviceModel, given: dict[str, Any]) -> str:
        model = registry.change_device_model(
            actor=user,
            model_id=obj.pk,
            changes={
                "description": given["description"],
                "requires_secure_boot": given["requiresSecureBoot"],
                "version_scheme": VersionScheme(given["versionScheme"]),
            },
        )
        return f"The device model {model} is changed."


@admin.register(DeviceModel)
class DeviceModelAdmin(ConsoleAdmin):
    empty_words = (
        "There is no device model.",
        "Add one first: devices and images of firmware are of a model.",
    )
    console_actions = (CreateDeviceModel, ChangeDeviceModel)
    page_template = "console/device_model.html"
    list_display = (
        *("name", "description", "versions", "version_scheme", "secure_boot"),
        "since",
    )
    search_fields = ("name", "description")
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeviceModel]:
        return DeviceModel.objects.annotate(version_count=Count("firmware"))

    @display(description="Firmware versions")
    def versions(self, model: Any) -> int:
        count: int = model.version_count
        return count

    @display(description="Secure boot")
    def secure_boot(self, model: DeviceModel) -> SafeString:
        if model.requires_secure_boot:
            return badge("required", WAITS, "verified_user")
        return badge("not required", NOT_STARTED, "shield")

    @display(description="Added")
    def since(self, model: DeviceModel) -> SafeString:
        return age(model.created_at)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {
            "secure_boot": self.secure_boot(obj),
            "expected": VersionScheme(obj.version_scheme).expected,
            "added": age(obj.created_at),
        }
