"""The upload of an image, with its form."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, QueryDict
from django.utils.datastructures import MultiValueDict
from django.utils.html import format_html
from django.views.decorators.csrf import csrf_protect
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request

from firmware.inputs import FirmwareInput
from firmware.model_field import offer_models
from firmware.models import DeviceModel, Firmware
from firmware.services.uploads import UploadOutcome, register_firmware
from firmware.storage import StagedImage
from firmware.uploads import FILE_FIELD, receive_upload
from firmware.versions import VersionScheme
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm, error_lines
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import acting_person, go_to
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.roles import Role

UPLOAD_MESSAGES = {
    UploadOutcome.NEW: "is uploaded and signed",
    UploadOutcome.KNOWN: "is known: these are its bytes",
    UploadOutcome.REPAIRED: "is repaired: its damaged image was replaced by this one",
}


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
        label="Note for the approver",
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
    rate = "UPLOADS_PER_MINUTE"
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
            messages.success(request, f"{firmware} {UPLOAD_MESSAGES[outcome]}.")
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
                        f"{form[name].label}: {text[:1].lower()}{text[1:]}"
                        if name in form.fields
                        else text
                        for name, texts in form.errors.items()
                        for text in map(str, texts)
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
        return register_firmware(
            actor=user, model_name=given.pop("model"), staged=staged, **given
        )
