"""Launching: with a dry run, again, and before the time has come.

Rules:
- A launch needs the preview of exactly what is launched: if the form, the number of
  devices or a warning has changed since, the new preview is shown instead.
- Each warning that must be acknowledged is confirmed for itself, beside its sentence:
  by a tick, by the version, typed, or by the number of devices, typed once for all
  warnings that are about it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils import timezone

from deployments.choices import AcknowledgedWarning, Strategy
from deployments.console.actions.launch_form import (
    INTEGER_LISTS,
    NAMED_FIELDS,
    LaunchForm,
)
from deployments.console.drawings import Drawing, DrawnStage, draw_plan
from deployments.copying import launch_body
from deployments.inputs import to_request
from deployments.models import Deployment, LaunchTemplate
from deployments.reads.preview import LaunchPreview, PreviewedStage, launch_preview
from deployments.services import editing, launch, launch_templates
from deployments.services.preview import preview_deployment
from deployments.services.requests import DeploymentRequest
from deployments.windows import DEFAULT_ZONE
from hotswap.common.console.actions.base import Action, LinkedAction
from hotswap.common.console.forms import ConsoleForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import READING, acting_person, go_to
from hotswap.common.console.text import age
from hotswap.common.durations import duration_in_words
from hotswap.common.errors import HotSwapError
from hotswap.common.etags import etag_of
from hotswap.common.models import User

TYPED_ABOVE = 100


ABOUT_THE_NUMBER = (AcknowledgedWarning.WHOLE_FLEET, AcknowledgedWarning.MANY_AT_ONCE)


NOT_CONFIRMED = "Nothing was done: confirm what is marked in the preview."


@dataclass(frozen=True, slots=True)
class Confirmation:
    """How whoever launches confirms a warning.

    Attributes:
        field: of the page.
        label: what is asked for.
        expected: what is to be sent: the text to type, or the code of a box to tick.
        given: what was sent.
    """

    field: str
    label: str
    expected: str
    given: str

    @property
    def is_tick(self) -> bool:
        return self.field == "acknowledge"

    @property
    def is_done(self) -> bool:
        return self.given == self.expected

    @property
    def error(self) -> str:
        return "Tick it, or launch something else" if self.is_tick else self.label


def _confirmations(
    request: HttpRequest, preview: LaunchPreview
) -> dict[str, Confirmation]:
    """Return what confirms each warning that must be acknowledged, by its code.

    The number of devices is typed once, though several warnings may be about it; where
    there are many it is asked for without one, under the code "".
    """
    eligible = preview.targets.eligible
    version = preview.firmware.version
    number = Confirmation(
        "typed",
        f"Type {eligible} to confirm the number of devices",
        str(eligible),
        request.POST.get("typed", "").replace(",", "").strip(),
    )
    found = {"": number} if eligible > TYPED_ABOVE else {}
    for code in (x.code for x in preview.warnings if x.must_acknowledge):
        if code in ABOUT_THE_NUMBER:
            found[code] = number
        elif code == AcknowledgedWarning.PREVIOUSLY_ROLLED_BACK:
            found[code] = Confirmation(
                "typedVersion",
                f"Type {version} to launch it all the same",
                version,
                request.POST.get("typedVersion", "").strip(),
            )
        else:
            is_ticked = code in request.POST.getlist("acknowledge")
            found[code] = Confirmation(
                "acknowledge",
                "I have read this, and launch all the same",
                code,
                code if is_ticked else "",
            )
    return found


def form_values(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands in the form for a body of `POST /deployments`."""
    values: dict[str, Any] = {}
    for name, value in body.items():
        if isinstance(value, dict):
            values |= {f"{name}_{inner}": part for inner, part in value.items()}
        elif name in INTEGER_LISTS:
            values[name] = ", ".join(str(each) for each in value)
        else:
            values[name] = value
    values["target"] = next(
        kind for kind, field in (*NAMED_FIELDS, ("all", "targetAll")) if field in body
    )
    values["targetDevices"] = "\n".join(body.get("targetDevices", []))
    if tag := values.get("greenFleet_tag"):
        values["greenFleet_tag"] = ":".join(*tag.items())
    if "regions" in body:
        values["regionOrder"] = ", ".join(body["regions"])
    return values


def _fingerprint(form: LaunchForm, preview: LaunchPreview) -> str:
    """Return a short digest of what would be launched and what is warned of."""
    warned = [(each.code, each.count) for each in preview.warnings]
    eligible = preview.targets.eligible
    text = json.dumps([form.body, eligible, warned], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Launch(Action):
    name = "launch"
    label = "Launch"
    icon = "rocket_launch"
    tone = "primary"
    rate = "PREVIEWS_PER_MINUTE"
    is_of_list = True
    is_dialog = False
    form_class = LaunchForm
    template = "console/launch.html"
    asks_why = False
    # Whether one may start from a template; what is launched anew begins otherwise.
    has_templates = True

    def heading(self, obj: Any) -> str:
        return "Launch a deployment"

    def execute_request(
        self, request: HttpRequest, asked: DeploymentRequest, obj: Any
    ) -> Deployment:
        """Do what was previewed."""
        deployment, _ = launch.create_deployment(
            actor=acting_person(request), request=asked
        )
        return deployment

    def button_label(self, form: LaunchForm, eligible: int) -> str:
        """Return what stands on the button that does it."""
        return _blast(form, eligible)

    def start_values(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return what stands in the form at first: what a link to it names.

        A link may name a template; what else it names goes over that.
        """
        values: dict[str, Any] = {}
        if template := _template_of(request):
            values = form_values(template.body)
        values |= {
            name: request.GET[name]
            for name in ("firmwareId", "strategy", "target", "targetDevices")
            if name in request.GET
        }
        if groups := request.GET.getlist("targetGroups"):
            values["targetGroups"] = groups
        if devices := request.GET.getlist("deviceIds"):
            values |= {"target": "devices", "targetDevices": "\n".join(devices)}
        return values

    def request_of(self, form: LaunchForm, obj: Any) -> DeploymentRequest:
        """Return what a valid form asks for."""
        assert form.given is not None
        return to_request(form.given)

    def serve(self, admin: ConsoleAdmin, request: HttpRequest, obj: Any) -> Any:
        if request.method not in (*READING, "POST"):
            return HttpResponseNotAllowed([*READING, "POST"])
        user = acting_person(request)
        if not user.may(self.role):
            raise PermissionDenied
        if request.method != "POST":
            chosen = self.start_values(request, obj)
            empty = LaunchForm(initial=chosen, asks_why=self.asks_why)
            return self.show(admin, request, obj, empty)
        form = LaunchForm(request.POST, asks_why=self.asks_why)
        if "saveTemplate" in request.POST:
            return self.save_template(admin, request, obj)
        is_launch = "launch" in request.POST and not _is_live(request)
        if not form.is_valid() or form.given is None:
            return self.show(admin, request, obj, form)
        try:
            asked = self.request_of(form, obj)
            preview = launch_preview(
                preview_deployment(request=asked, now=timezone.now())
            )
            eligible = preview.targets.eligible
            fingerprint = _fingerprint(form, preview)
            confirmations = _confirmations(request, preview)
            if _is_live(request) and request.POST.get("fingerprint") != fingerprint:
                # What was confirmed was something else.
                confirmations = {
                    code: replace(each, given="")
                    for code, each in confirmations.items()
                }
            problem = ""
            if is_launch:
                problem = self._problem(request, fingerprint, eligible)
                undone = [x for x in confirmations.values() if not x.is_done]
                if not problem and not undone:
                    codes = frozenset(code for code in confirmations if code)
                    asked = replace(asked, acknowledge=codes)
                    deployment = self.execute_request(request, asked, obj)
                    return go_to(request, admin.page_url(deployment))
                problem = problem or NOT_CONFIRMED
        except HotSwapError as error:
            form.refuse(error)
            return self.show(admin, request, obj, form)
        return self.show(
            admin,
            request,
            obj,
            form,
            preview=preview,
            warnings=[
                (each, confirmations.get(each.code)) for each in preview.warnings
            ],
            number=next(
                (x for x in confirmations.values() if x.field == "typed"), None
            ),
            insists=problem == NOT_CONFIRMED,
            stages=_with_percents(preview.stages, eligible),
            problem=problem,
            fingerprint=fingerprint,
            blast=self.button_label(form, eligible),
            drawing=_drawing(form, preview.stages),
            starts=_start_in_words(form),
            to_confirm=sum(not each.is_done for each in confirmations.values()),
            absent=eligible - preview.blast_radius.online,
            left_out=preview.targets.matched - eligible,
            over_in=age(preview.expected.finishes_at) if preview.expected else "",
        )

    def show(
        self,
        admin: ConsoleAdmin,
        request: HttpRequest,
        obj: Any,
        form: ConsoleForm,
        **more: Any,
    ) -> HttpResponse:
        """Render the page, or the preview alone for one that is being filled in."""
        if not _is_live(request):
            started_from = _template_of(request)
            templates = [
                {
                    "name": each.name,
                    "url": f"{admin.action_url(self, obj)}?template={each.pk}",
                    "removal": admin.action_url(RemoveTemplate(), None)
                    + "?"
                    + urlencode({"name": each.name}),
                    "is_shown": each == started_from,
                }
                for each in LaunchTemplate.objects.defer("body")
                if self.has_templates
            ]
            return super().show(admin, request, obj, form, templates=templates, **more)
        return TemplateResponse(
            request,
            "console/launch_preview.html",
            {
                **more,
                "action": self,
                "form": form,
                "form_url": admin.action_url(self, obj),
                "missing": _missing(form),
                "is_piece": True,
            },
            headers={"Cache-Control": "no-store", "Vary": "HX-Request"},
        )

    def save_template(
        self, admin: ConsoleAdmin, request: HttpRequest, obj: Any
    ) -> HttpResponse:
        """Keep what stands in the form under a name; answer with a piece of the page.

        No reason is asked for: nothing is launched.
        """
        form = LaunchForm(request.POST)
        named = TemplateNameForm(request.POST)
        saved = None
        if named.is_valid() and form.is_valid():
            try:
                saved = launch_templates.save_template(
                    actor=acting_person(request),
                    name=named.cleaned_data["templateName"],
                    body=form.body,
                )
            except HotSwapError as error:
                named.refuse(error)
        return TemplateResponse(
            request,
            "console/launch_template.html",
            {
                "named": named,
                "missing": _missing(form),
                "saved": saved,
                "form_url": admin.action_url(self, obj),
            },
            headers={"Cache-Control": "no-store"},
        )

    @staticmethod
    def _problem(request: HttpRequest, fingerprint: str, eligible: int) -> str:
        """Say why the launch button is not obeyed; empty if it may be."""
        if request.POST.get("eligible", str(eligible)) != str(eligible):
            return (
                f"The number of devices has changed to {eligible} since the preview: "
                "look at the new one."
            )
        if request.POST.get("fingerprint") != fingerprint:
            return (
                "The form, or a warning, has changed since its preview: look at the "
                "new one."
            )
        return ""


class TemplateNameForm(ConsoleForm):
    templateName = forms.CharField(label="Name of the template", max_length=64)


class TemplateForm(ConsoleForm):
    name = forms.CharField(max_length=64)


class RemoveTemplate(LinkedAction):
    name = "remove-template"
    label = "Remove template"
    icon = "delete"
    form_class = TemplateForm

    def notes(self, obj: Any) -> tuple[str, ...]:
        return ("Nobody can start from it any more. Deployments stay as they are.",)

    def next_url(self, admin: ConsoleAdmin, obj: Any) -> str:
        return admin.url(Launch.name)

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        launch_templates.remove_template(actor=user, name=given["name"])
        return f"The template {given['name']} is removed."


class CopyAsNew(Launch):
    """The same form, filled in with what was launched before, and with a reason."""

    name = "copy"
    label = "Copy as new"
    icon = "content_copy"
    tone = "plain"
    is_of_list = False
    asks_why = True
    has_templates = False

    def heading(self, obj: Any) -> str:
        return f"Launch {obj} again"

    def start_values(self, request: HttpRequest, obj: Deployment) -> dict[str, Any]:
        values = form_values(launch_body(obj))
        if "regions" in obj.parameters:
            values["regionOrder"] = ", ".join(obj.parameters["regions"])
        return values

    def request_of(self, form: LaunchForm, obj: Deployment) -> DeploymentRequest:
        return replace(
            super().request_of(form, obj),
            copied_from=obj.pk,
            reason=form.cleaned_data["reason"],
        )


class EditWaiting(CopyAsNew):
    """The same form for a deployment that waits for its time, to save it."""

    name = "edit"
    label = "Edit"
    icon = "edit"
    asks_why = False

    def applies(self, obj: Deployment) -> bool:
        return obj.is_waiting

    def heading(self, obj: Any) -> str:
        return f"Edit {obj}"

    def start_values(self, request: HttpRequest, obj: Deployment) -> dict[str, Any]:
        values = super().start_values(request, obj) | {"name": obj.name}
        if obj.scheduled_at is not None:
            at = obj.scheduled_at.astimezone(UTC).replace(tzinfo=None)
            precision = "seconds" if at.second else "minutes"
            values["scheduledAt"] = at.isoformat(timespec=precision)
        return values

    def request_of(self, form: LaunchForm, obj: Deployment) -> DeploymentRequest:
        assert form.given is not None
        return to_request(form.given)

    def show(
        self,
        admin: ConsoleAdmin,
        request: HttpRequest,
        obj: Any,
        form: ConsoleForm,
        **more: Any,
    ) -> HttpResponse:
        # Of what was read when the form was opened, however often it is previewed.
        version = request.POST.get("version") or etag_of(obj)
        return super().show(admin, request, obj, form, version=version, **more)

    def execute_request(
        self, request: HttpRequest, asked: DeploymentRequest, obj: Deployment
    ) -> Deployment:
        acknowledged = frozenset(obj.acknowledged)
        deployment, _ = editing.edit_deployment(
            actor=acting_person(request),
            deployment_id=obj.pk,
            # What was acknowledged ahead, by the API, and does not apply now stays so.
            request=replace(asked, acknowledge=asked.acknowledge | acknowledged),
            expected=frozenset({request.POST.get("version", "")}),
        )
        return deployment

    def button_label(self, form: LaunchForm, eligible: int) -> str:
        noun = "device" if eligible == 1 else "devices"
        return f"Save, for {eligible} {noun} at present"


def _missing(form: ConsoleForm) -> list[tuple[Any, Any]]:
    """Return what is wrong with a form, each by the label of its field."""
    return [
        (form[name].label if name in form.fields else "", errors)
        for name, errors in form.errors.items()
    ]


def _template_of(request: HttpRequest) -> LaunchTemplate | None:
    """Return the template that a link to the form names, if there is one."""
    try:
        wanted = UUID(request.GET.get("template", ""))
    except ValueError:
        return None
    return LaunchTemplate.objects.filter(pk=wanted).first()


def _is_live(request: HttpRequest) -> bool:
    """Tell whether the page asks for its preview while the form is filled in."""
    return request.method == "POST" and "HX-Request" in request.headers


def _drawing(form: LaunchForm, stages: tuple[PreviewedStage, ...]) -> Drawing | None:
    return draw_plan(
        form.cleaned_data["strategy"],
        [
            DrawnStage(
                each.number,
                each.name,
                each.size,
                each.exposed_devices,
                (("blue", each.size),),
            )
            for each in stages
        ],
        in_flight=form.cleaned_data.get("maxConcurrentBatches") or 1,
    )


def _start_in_words(form: LaunchForm) -> str:
    """Spell the start out, in the zone of whoever launches and in UTC."""
    at = form.start()
    if at is None:
        return "at once"
    zone = form.cleaned_data.get("scheduledZone") or DEFAULT_ZONE
    own = f"{at:%A, %d %B %Y, %H:%M} {zone}"
    if zone == DEFAULT_ZONE:
        return own
    return f"{own}, that is {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _blast(form: LaunchForm, eligible: int) -> str:
    strategy = Strategy(form.cleaned_data["strategy"]).label.lower()
    noun = "device" if eligible == 1 else "devices"
    action = "Schedule" if form.cleaned_data.get("scheduledAt") else "Launch"
    return f"{action} {strategy} on {eligible} {noun}"


def _with_percents(
    stages: tuple[PreviewedStage, ...], eligible: int
) -> list[dict[str, Any]]:
    return [
        {
            "stage": stage,
            "percent": f"{100 * stage.exposed_devices / eligible:.4f}",
            "wait": duration_in_words(timedelta(seconds=stage.wait_seconds)),
        }
        for stage in stages
    ]
