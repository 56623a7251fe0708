"""Routes of devices: registry, credentials, groups."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import AuthenticationFailed, ValidationError
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from devices import selectors
from devices.api.authentication import DevicePrincipal
from devices.api.certificates import presented_certificate, required_certificate
from devices.api.filters import DeviceFilter, DeviceListFilter
from devices.api.serializers import (
    ApiKeyOutput,
    AudienceChangeOutput,
    CertificateOutput,
    ChangedDeviceOutput,
    ChangedGroupOutput,
    DeviceDetailOutput,
    DeviceOutput,
    DeviceTokenOutput,
    FirmwareRunOutput,
    GroupOutput,
    ListedDeviceOutput,
    RegisteredDeviceOutput,
    RulePreviewOutput,
)
from devices.exceptions import DeviceNotFoundError, GroupNotFoundError
from devices.files import devices_file, export_response
from devices.inputs import (
    AcknowledgementInput,
    CertificateInput,
    DeviceChangesInput,
    DeviceInput,
    DeviceReplacementInput,
    DeviceTokenInput,
    GroupInput,
    MembersInput,
    NewGroupInput,
    RevocationInput,
    RotationInput,
    RulePreviewInput,
)
from devices.models import Device, DeviceCertificate, DeviceGroup, FirmwareRun
from devices.permissions import calling_device
from devices.services import (
    certificates,
    credentials,
    erasure,
    groups,
    registry,
)
from devices.services.audiences import AudienceChange
from hotswap.common.api.base import ApiView, ListView, acting_person
from hotswap.common.api.etags import expected_etags
from hotswap.common.api.filters import RepeatableFilter
from hotswap.common.api.idempotency import idempotent, idempotent_without
from hotswap.common.api.proxy import client_address
from hotswap.common.api.serializers import EmptyInput
from hotswap.common.api.signatures import ErasureInput, given_signature
from hotswap.common.api.throttling import guard_login
from hotswap.common.etags import etag_of
from hotswap.common.models import User
from hotswap.common.roles import Role
from hotswap.common.signatures import Meaning


def device_response(device: Device) -> Response:
    return Response(DeviceDetailOutput(device).data, headers={"ETag": etag_of(device)})


def _changes(given: dict[str, Any]) -> dict[str, Any]:
    if "model" in given:
        given["model_name"] = given.pop("model")
    return given


ACKNOWLEDGE = OpenApiParameter(
    "acknowledge",
    enum=["audience"],
    description="Change what deployments to come would reach, knowingly; without it "
    "such a change is refused as `audience_changes` (409).",
)


class AudienceView(ApiView):
    """A view whose changes may reach into deployments that have yet to start."""

    def known_parameters(self, request: Request) -> set[str]:
        known = super().known_parameters(request)
        return known if request.method in ("GET", "HEAD") else known | {"acknowledge"}

    @staticmethod
    def is_acknowledged(request: Request) -> bool:
        """Tell whether the caller knows.

        Raises:
            ValidationError: it says that it knows something else.
        """
        acknowledged = request.query_params.get("acknowledge")
        if acknowledged not in (None, "audience"):
            raise ValidationError(
                {"acknowledge": ["must be audience"]}, code="invalid_choice"
            )
        return acknowledged is not None


def audience_rows(affected: tuple[AudienceChange, ...]) -> dict[str, Any]:
    return {"affectedDeployments": AudienceChangeOutput(affected, many=True).data}


class DeviceTokenView(ApiView):
    roles = {"POST": Role.ANYONE}
    authentication_classes = []

    @extend_schema(request=DeviceTokenInput, responses=DeviceTokenOutput)
    def post(self, request: Request) -> Response:
        """Exchange a device's API key, or its certificate, for an access token."""
        given = self.validated(DeviceTokenInput, request.data)
        required_certificate(request, given["device_id"])
        if "api_key" in given:
            token = guard_login(
                request,
                f"device {given['device_id']}",
                lambda: credentials.issue_device_token(
                    **given, address=client_address(request), now=timezone.now()
                ),
            )
        else:
            token = self._for_certificate(request, given["device_id"])
        if token is None:
            raise AuthenticationFailed(
                "the device id or the API key is wrong", code="login_failed"
            )
        seconds = int(settings.DEVICE_TOKEN_LIFETIME.total_seconds())
        return Response(
            DeviceTokenOutput(
                {
                    "access": token.access,
                    "expires_in": seconds,
                    "key_expires_at": token.key_expires_at,
                }
            ).data,
            headers={"Cache-Control": "no-store"},
        )

    @staticmethod
    def _for_certificate(
        request: Request, device_id: str
    ) -> credentials.IssuedToken | None:
        found = None
        if settings.DEVICE_CERTIFICATES == "optional":
            found = presented_certificate(request)
        if found is None:
            raise ValidationError(
                {"apiKey": ["this field is required"]}, code="required"
            )
        return credentials.issue_certificate_token(
            device_id=device_id, certificate=found
        )


class DevicesView(ListView):
    """All devices by name; register on POST."""

    roles = {"GET": Role.VIEWER, "POST": Role.OPERATOR}
    queryset = Device.objects.select_related("model", "state").with_key_expiry()
    filterset_class = DeviceListFilter
    output_class = ListedDeviceOutput
    ordering = "device_id"

    @property
    def paginator(self) -> Any:
        paginator, asked = super().paginator, self.request.query_params
        name = "name_order" if asked.get("search", "").strip() else "device_id"
        sign = "-" if asked.get("sort") == "-deviceId" else ""
        paginator.ordering = (f"{sign}{name}",)
        return paginator

    def page_data(self, rows: list[Device]) -> Any:
        if self.request.query_params.get("include") == "groups":
            groups = selectors.groups_of_each(rows)
            for device in rows:
                device.__dict__["current_groups"] = groups[device.pk]
            return ListedDeviceOutput(rows, many=True).data
        return DeviceOutput(rows, many=True).data

    @extend_schema(request=DeviceInput, responses={201: RegisteredDeviceOutput})
    @idempotent_without("apiKey")
    def post(self, request: Request) -> Response:
        """Register a device; its API key is in the answer and nowhere else."""
        given = self.validated(DeviceInput, request.data)
        device, api_key = registry.register_device(
            actor=acting_person(request), **_changes(given)
        )
        return Response(
            DeviceDetailOutput(device).data | {"apiKey": api_key},
            status=201,
            headers={
                "ETag": etag_of(device),
                "Location": f"/api/v1/devices/{device.device_id}",
                "Cache-Control": "no-store",
            },
        )


class ExportDevicesView(ApiView, GenericAPIView):
    roles = {"GET": Role.VIEWER}
    rates = {"GET": "EXPORTS_PER_MINUTE"}
    queryset = Device.objects.all()
    filterset_class = DeviceFilter
    pagination_class = None

    def known_parameters(self, request: Request) -> set[str]:
        return set(DeviceFilter.base_filters)

    def repeatable_parameters(self) -> set[str]:
        return {
            name
            for name, found in DeviceFilter.base_filters.items()
            if isinstance(found, RepeatableFilter)
        }

    @extend_schema(
        operation_id="devices_list_export",
        filters=True,
        responses={(200, "text/csv"): OpenApiTypes.STR},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """Give out the devices of a list as CSV, to be edited and imported again."""
        return devices_file(
            self.filter_queryset(self.get_queryset()),
            actor=acting_person(request),
            asked=dict(request.query_params.lists()),
        )


class DeviceView(AudienceView):
    """One device."""

    roles = {
        "GET": Role.VIEWER,
        "PUT": Role.OPERATOR,
        "PATCH": Role.OPERATOR,
        "DELETE": Role.ADMIN,
    }

    @extend_schema(responses={204: None})
    def delete(self, request: Request, device_id: str) -> Response:
        """Erase the device and all that is held about it but its pseudonym.

        Where it has to be signed, the body has a `signature` with the meaning
        `device_erasure`.
        """
        given = self.validated(ErasureInput, request.data)
        erasure.erase_device(
            actor=acting_person(request),
            device_id=device_id,
            signature=given_signature(request, given, Meaning.DEVICE_ERASURE),
        )
        return Response(status=204)

    @extend_schema(responses=DeviceDetailOutput)
    def get(self, request: Request, device_id: str) -> Response:
        device = (
            Device.objects.select_related("model", "state")
            .filter(device_id=device_id)
            .first()
        )
        if device is None:
            raise DeviceNotFoundError(f"there is no device {device_id!r}")
        return device_response(device)

    @extend_schema(
        request=DeviceReplacementInput,
        responses=ChangedDeviceOutput,
        parameters=[ACKNOWLEDGE],
    )
    def put(self, request: Request, device_id: str) -> Response:
        given = self.validated(DeviceReplacementInput, request.data)
        return self._change(request, device_id, given)

    @extend_schema(
        request=DeviceChangesInput,
        responses=ChangedDeviceOutput,
        parameters=[ACKNOWLEDGE],
    )
    def patch(self, request: Request, device_id: str) -> Response:
        given = self.validated(DeviceChangesInput, request.data)
        return self._change(request, device_id, given)

    def _change(
        self, request: Request, device_id: str, given: dict[str, Any]
    ) -> Response:
        change = registry.change_device(
            actor=acting_person(request),
            device_id=device_id,
            changes=_changes(given),
            expected=expected_etags(request),
            acknowledged=self.is_acknowledged(request),
        )
        response = device_response(change.device)
        response.data |= audience_rows(change.affected)
        return response


class ExportDeviceView(ApiView):
    roles = {"GET": Role.ADMIN}
    rates = {"GET": "EXPORTS_PER_MINUTE"}

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, device_id: str) -> StreamingHttpResponse:
        """Give out all that is held about the device."""
        return export_response(device_id)


class FirmwareHistoryView(ListView):
    """What the device ran, newest first."""

    roles = {"GET": Role.VIEWER}
    queryset = FirmwareRun.objects.all()
    output_class = FirmwareRunOutput
    ordering = "-id"

    def get_queryset(self) -> Any:
        device = Device.objects.filter(device_id=self.kwargs["device_id"]).first()
        if device is None:
            raise DeviceNotFoundError(
                f"there is no device {self.kwargs['device_id']!r}"
            )
        return FirmwareRun.objects.filter(device=device)


class EnableDeviceView(ApiView):
    roles = {"POST": Role.OPERATOR}
    enabled = True

    @extend_schema(request=None, responses=DeviceDetailOutput)
    @idempotent
    def post(self, request: Request, device_id: str) -> Response:
        """Enable or disable updates of a device."""
        self.validated(EmptyInput, request.data)
        change = registry.change_device(
            actor=acting_person(request),
            device_id=device_id,
            changes={"enabled": self.enabled},
            expected=expected_etags(request),
        )
        return device_response(change.device)


class RevokeDeviceView(ApiView):
    roles = {"POST": Role.OPERATOR}

    @extend_schema(request=RevocationInput, responses=DeviceDetailOutput)
    @idempotent
    def post(self, request: Request, device_id: str) -> Response:
        """Shut a device out."""
        given = self.validated(RevocationInput, request.data)
        return device_response(
            registry.revoke_device(
                actor=acting_person(request), device_id=device_id, **given
            )
        )


class AcknowledgeAlarmView(ApiView):
    roles = {"POST": Role.OPERATOR}

    @extend_schema(request=AcknowledgementInput, responses=DeviceDetailOutput)
    @idempotent
    def post(self, request: Request, device_id: str) -> Response:
        """Say that the alarm of a device has been looked into."""
        given = self.validated(AcknowledgementInput, request.data)
        return device_response(
            registry.acknowledge_alarm(
                actor=acting_person(request), device_id=device_id, **given
            )
        )


class CertificatesView(ListView):
    """The client certificates that a device may call with."""

    roles = {"GET": Role.VIEWER, "POST": Role.OPERATOR}
    output_class = CertificateOutput
    queryset = DeviceCertificate.objects.all()
    ordering = "fingerprint"

    def get_queryset(self) -> Any:
        device_id = self.kwargs["device_id"]
        if not Device.objects.filter(device_id=device_id).exists():
            raise DeviceNotFoundError(f"there is no device {device_id!r}")
        return DeviceCertificate.objects.filter(device__device_id=device_id)

    @extend_schema(request=CertificateInput, responses={201: CertificateOutput})
    @idempotent
    def post(self, request: Request, device_id: str) -> Response:
        """Register a certificate, given in PEM."""
        given = self.validated(CertificateInput, request.data)
        added = certificates.add_certificate(
            actor=acting_person(request), device_id=device_id, **given
        )
        return Response(
            CertificateOutput(added).data,
            status=201,
            headers={
                "Location": (
                    f"/api/v1/devices/{device_id}/certificates/{added.fingerprint}"
                )
            },
        )


class CertificateView(ApiView):
    """One client certificate of a device."""

    roles = {"GET": Role.VIEWER, "DELETE": Role.OPERATOR}

    @extend_schema(responses=CertificateOutput)
    def get(self, request: Request, device_id: str, fingerprint: str) -> Response:
        return Response(
            CertificateOutput(
                certificates.get_certificate(
                    device_id=device_id, fingerprint=fingerprint
                )
            ).data
        )

    @extend_schema(responses={204: None})
    def delete(self, request: Request, device_id: str, fingerprint: str) -> Response:
        """Shut a certificate out at once."""
        certificates.remove_certificate(
            actor=acting_person(request), device_id=device_id, fingerprint=fingerprint
        )
        return Response(status=204)


class ApiKeyView(ApiView):
    roles = {"POST": (Role.OPERATOR, Role.DEVICE)}

    @extend_schema(request=RotationInput, responses={201: ApiKeyOutput})
    @idempotent_without("apiKey")
    def post(self, request: Request, device_id: str) -> Response:
        """Make a new API key; the older ones overlap with it for 24 hours.

        A device sends the `apiKey` that it has, unless it comes with a certificate: a
        token alone, which may have been stolen, gives no key. A person sends none.
        """
        given = self.validated(RotationInput, request.data)
        actor: User | None = None
        caller: Any = request.user
        if isinstance(caller, DevicePrincipal):
            self._prove(request, calling_device(request, device_id), given)
        elif given:
            raise ValidationError(
                {"apiKey": ["a device alone proves its key"]}, code="unknown"
            )
        else:
            actor = acting_person(request)
        key = credentials.rotate_key(device_id=device_id, actor=actor)
        # The key itself cannot be read again; its device tells when it expires.
        return Response(
            ApiKeyOutput(key).data,
            status=201,
            headers={
                "Location": f"/api/v1/devices/{device_id}",
                "Cache-Control": "no-store",
            },
        )

    @staticmethod
    def _prove(request: Request, device: Device, given: dict[str, Any]) -> None:
        """See that the caller has more of the device than its token."""
        certificate = presented_certificate(request)
        if certificate is not None and certificate.device == device:
            return
        if "api_key" not in given:
            raise ValidationError(
                {"apiKey": ["this field is required"]}, code="required"
            )
        proved = guard_login(
            request,
            f"device {device.device_id}",
            lambda: (
                credentials.proves_key(
                    device_id=device.device_id,
                    api_key=given["api_key"],
                    address=client_address(request),
                    now=timezone.now(),
                )
                or None
            ),
        )
        if not proved:
            raise AuthenticationFailed("the API key is wrong", code="login_failed")


def group_rows(rows: list[DeviceGroup]) -> Any:
    """Show groups, each with the number of devices that are in it now."""
    counts = selectors.count_members(rows)
    for group in rows:
        group.__dict__["device_count"] = counts[group.pk]
    return GroupOutput(rows, many=True).data


def group_response(group: DeviceGroup, status: int = 200) -> Response:
    headers = {"ETag": etag_of(group)}
    if status == 201:
        headers["Location"] = f"/api/v1/device-groups/{group.pk}"
    return Response(group_rows([group])[0], status=status, headers=headers)


def changed_group_response(change: groups.GroupChange) -> Response:
    response = group_response(change.group)
    response.data |= audience_rows(change.affected)
    return response


class GroupsView(ListView):
    """All groups by name."""

    roles = {"GET": Role.VIEWER, "POST": Role.OPERATOR}
    output_class = GroupOutput
    queryset = DeviceGroup.objects.all()
    ordering = "name"

    def page_data(self, rows: list[DeviceGroup]) -> Any:
        return group_rows(rows)

    @extend_schema(request=NewGroupInput, responses={201: GroupOutput})
    @idempotent
    def post(self, request: Request) -> Response:
        """Make a group: a static one of its devices, or a dynamic one by its rule."""
        given = self.validated(NewGroupInput, request.data)
        return group_response(
            groups.create_group(actor=acting_person(request), **given), 201
        )


class GroupPreviewView(ApiView):
    roles = {"POST": Role.OPERATOR}
    rates = {"POST": "PREVIEWS_PER_MINUTE"}

    @extend_schema(request=RulePreviewInput, responses=RulePreviewOutput)
    def post(self, request: Request) -> Response:
        """Say whom a rule means now, without writing anything.

        With `groupId` also how that differs from what the group means now, and which
        deployments to come would reach other devices.
        """
        given = self.validated(RulePreviewInput, request.data)
        preview = groups.preview_rule(
            rule=given["rule"], group_id=given.get("group_id")
        )
        return Response(RulePreviewOutput(preview).data)


def _found_group(group_id: Any) -> DeviceGroup:
    group = DeviceGroup.objects.filter(pk=group_id).first()
    if group is None:
        raise GroupNotFoundError("there is no such group")
    return group


class GroupView(AudienceView):
    """One group."""

    roles = {"GET": Role.VIEWER, "PUT": Role.OPERATOR, "DELETE": Role.OPERATOR}

    @extend_schema(responses=GroupOutput)
    def get(self, request: Request, group_id: Any) -> Response:
        return group_response(_found_group(group_id))

    @extend_schema(
        request=GroupInput, responses=ChangedGroupOutput, parameters=[ACKNOWLEDGE]
    )
    def put(self, request: Request, group_id: Any) -> Response:
        """Rename, describe or redefine a group."""
        given = self.validated(GroupInput, request.data)
        change = groups.change_group(
            actor=acting_person(request),
            group_id=group_id,
            expected=expected_etags(request),
            acknowledged=self.is_acknowledged(request),
            **given,
        )
        return changed_group_response(change)

    def known_parameters(self, request: Request) -> set[str]:
        # Deleting is refused whatever the caller knows.
        return (
            set() if request.method == "DELETE" else super().known_parameters(request)
        )

    @extend_schema(responses={204: None})
    def delete(self, request: Request, group_id: Any) -> Response:
        """Remove a group that no deployment to come names; its devices stay."""
        groups.delete_group(actor=acting_person(request), group_id=group_id)
        return Response(status=204)


class GroupMembersView(AudienceView, ListView):
    """The devices of a group."""

    roles = {"GET": Role.VIEWER, "POST": Role.OPERATOR, "DELETE": Role.OPERATOR}
    output_class = DeviceOutput
    queryset = Device.objects.all()
    ordering = "device_id"

    def get_queryset(self) -> Any:
        group = _found_group(self.kwargs["group_id"])
        return (
            selectors.devices_of(group)
            .select_related("model", "state")
            .with_key_expiry()
        )

    @extend_schema(
        request=MembersInput, responses=ChangedGroupOutput, parameters=[ACKNOWLEDGE]
    )
    @idempotent
    def post(self, request: Request, group_id: Any) -> Response:
        """Add devices to a static group, all or none."""
        return self._change(groups.add_members, request, group_id)

    @extend_schema(
        request=MembersInput,
        responses={200: ChangedGroupOutput},
        parameters=[ACKNOWLEDGE],
    )
    def delete(self, request: Request, group_id: Any) -> Response:
        """Remove devices from a static group, all or none."""
        return self._change(groups.remove_members, request, group_id)

    def _change(
        self,
        service: Callable[..., groups.GroupChange],
        request: Request,
        group_id: Any,
    ) -> Response:
        given = self.validated(MembersInput, request.data)
        return changed_group_response(
            service(
                actor=acting_person(request),
                group_id=group_id,
                acknowledged=self.is_acknowledged(request),
                **given,
            )
        )
