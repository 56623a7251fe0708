"""Routes of enrolment: tokens, devices that register themselves, decisions."""

from typing import Any

import django_filters
from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.response import Response

from devices.choices import EnrolmentStatus, TokenStatus
from devices.enrolment_inputs import EnrolmentTokenInput
from devices.inputs import DeviceIdField, RegionField, ReportedVersionField, TagsField
from devices.models import EnrolmentRequest, EnrolmentToken
from devices.services import enrolment
from devices.services.enrolment import Applicant, Enrolled
from hotswap.common.api.base import ApiView, ListView, acting_person
from hotswap.common.api.filters import ChoiceFilter
from hotswap.common.api.idempotency import idempotent, idempotent_without
from hotswap.common.api.serializers import (
    SHOWN_ONCE,
    CamelSerializer,
    EmptyInput,
    StrictCharField,
    StrictChoiceField,
    StrictRegexField,
)
from hotswap.common.api.throttling import guard_login
from hotswap.common.roles import Role

# Printable ASCII: what a shell script can make, store and send again unchanged.
MADE_BY_DEVICE = r"^[!-~]{32,256}\Z"


class EnrolmentTokenOutput(CamelSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    model = serializers.CharField(source="model.name", default=None, allow_null=True)
    region = serializers.SerializerMethodField(method_name="get_region")
    tags = serializers.DictField(child=serializers.CharField())
    needs_approval = serializers.BooleanField()
    max_uses = serializers.IntegerField(allow_null=True)
    uses = serializers.IntegerField()
    status = serializers.SerializerMethodField(method_name="get_status")
    expires_at = serializers.DateTimeField()
    revoked_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_region(self, token: EnrolmentToken) -> str | None:
        return token.region or None

    @extend_schema_field(StrictChoiceField(choices=TokenStatus.choices))
    def get_status(self, token: EnrolmentToken) -> str:
        return token.status_at(timezone.now()).value


class NewEnrolmentTokenOutput(EnrolmentTokenOutput):
    enrolment_token = serializers.CharField(
        read_only=True, allow_null=True, help_text=SHOWN_ONCE
    )


class EnrolmentInput(CamelSerializer):
    enrolment_token = StrictCharField(max_length=128)
    device_id = DeviceIdField()
    model = StrictCharField(max_length=64)
    region = RegionField(required=False)
    tags = TagsField(required=False)
    firmware_version = ReportedVersionField(required=False, allow_blank=True)
    secret = StrictRegexField(
        MADE_BY_DEVICE,
        error_messages={"invalid": "must be 32 to 256 printable ASCII characters"},
    )


class EnrolledOutput(CamelSerializer):
    status = StrictChoiceField(choices=["Completed"])
    device_id = serializers.CharField()
    api_key = serializers.CharField()
    key_expires_at = serializers.DateTimeField()


class WaitingOutput(CamelSerializer):
    status = StrictChoiceField(choices=["Pending"])


class EnrolmentOutput(CamelSerializer):
    id = serializers.UUIDField()
    device_id = serializers.CharField()
    model = serializers.CharField(source="model.name")
    region = serializers.CharField()
    tags = serializers.DictField(child=serializers.CharField())
    firmware_version = serializers.CharField()
    status = StrictChoiceField(choices=EnrolmentStatus.choices)
    token_id = serializers.UUIDField()
    token_name = serializers.CharField(source="token.name")
    comment = serializers.CharField()
    decided_by = serializers.CharField(
        source="decided_by.username", default=None, allow_null=True
    )
    decided_at = serializers.DateTimeField(allow_null=True)
    completed_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


class DecisionInput(CamelSerializer):
    comment = StrictCharField(
        max_length=2000, required=False, allow_blank=True, default=""
    )


class EnrolmentTokensView(ListView):
    """All enrolment tokens, newest first."""

    roles = {"GET": Role.ADMIN, "POST": Role.ADMIN}
    queryset = EnrolmentToken.objects.select_related("model")
    output_class = EnrolmentTokenOutput
    ordering = "-created_at"

    @extend_schema(
        request=EnrolmentTokenInput, responses={201: NewEnrolmentTokenOutput}
    )
    @idempotent_without("enrolmentToken")
    def post(self, request: Request) -> Response:
        """Make a token; its value is in the answer and nowhere else."""
        given = self.validated(EnrolmentTokenInput, request.data)
        token, value = enrolment.create_enrolment_token(
            actor=acting_person(request),
            model_name=given.pop("model", None),
            region=given.pop("region", None) or "",
            **given,
        )
        return Response(
            EnrolmentTokenOutput(token).data | {"enrolmentToken": value},
            status=201,
            headers={
                "Location": f"/api/v1/enrolment-tokens/{token.pk}",
                "Cache-Control": "no-store",
            },
        )


class EnrolmentTokenView(ApiView):
    """One enrolment token, without its value."""

    roles = {"GET": Role.ADMIN}

    @extend_schema(responses=EnrolmentTokenOutput)
    def get(self, request: Request, token_id: Any) -> Response:
        return Response(
            EnrolmentTokenOutput(enrolment.get_enrolment_token(token_id)).data
        )


class RevokeEnrolmentTokenView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=None, responses=EnrolmentTokenOutput)
    @idempotent
    def post(self, request: Request, token_id: Any) -> Response:
        """Let nobody in with it any more; devices that wait are refused too."""
        self.validated(EmptyInput, request.data)
        return Response(
            EnrolmentTokenOutput(
                enrolment.revoke_enrolment_token(
                    actor=acting_person(request), token_id=token_id
                )
            ).data
        )


class EnrolmentFilter(django_filters.FilterSet):
    status = ChoiceFilter(choices=EnrolmentStatus.choices)
    deviceId = django_filters.CharFilter("device_id")


class EnrolmentsView(ListView):
    """Devices that asked to be registered, newest first; ask on POST."""

    roles = {"GET": Role.VIEWER, "POST": Role.ANYONE}
    queryset = EnrolmentRequest.objects.select_related("model", "token", "decided_by")
    filterset_class = EnrolmentFilter
    output_class = EnrolmentOutput
    ordering = "-created_at"

    def get_authenticators(self) -> list[Any]:
        # The token in the body is what lets a device in; another one is not read.
        method = getattr(self.request, "method", None)
        return [] if method == "POST" else super().get_authenticators()

    @extend_schema(
        request=EnrolmentInput,
        responses={
            201: EnrolledOutput,
            202: OpenApiResponse(
                WaitingOutput, description="A person decides; ask again after a while."
            ),
        },
    )
    def post(self, request: Request) -> Response:
        """Register the calling device, at once or when a person has approved it.

        The device makes the secret itself, keeps it, and repeats the same call until
        it has its key.
        """
        given = self.validated(EnrolmentInput, request.data)
        token = given.pop("enrolment_token")
        applicant = Applicant(model_name=given.pop("model"), **given)
        answer = guard_login(
            request,
            f"enrolment {applicant.device_id}",
            lambda: enrolment.enrol_device(
                enrolment_token=token, applicant=applicant, now=timezone.now()
            ),
        )
        match answer:
            case None:
                raise AuthenticationFailed(
                    "the enrolment token is wrong, expired, used up or revoked",
                    code="enrolment_token_invalid",
                )
            case Enrolled():
                body = {
                    "status": "Completed",
                    "device_id": answer.device_id,
                    "api_key": answer.api_key,
                    "key_expires_at": answer.key_expires_at,
                }
                return Response(
                    EnrolledOutput(body).data,
                    status=201,
                    headers={
                        "Location": f"/api/v1/devices/{answer.device_id}",
                        "Cache-Control": "no-store",
                    },
                )
            case _:
                seconds = int(settings.ENROLMENT_RETRY.total_seconds())
                return Response(
                    {"status": "Pending"},
                    status=202,
                    headers={"Retry-After": str(seconds), "Cache-Control": "no-store"},
                )


class DecideEnrolmentView(ApiView):
    roles = {"POST": Role.OPERATOR}
    is_approval = True

    @extend_schema(request=DecisionInput, responses=EnrolmentOutput)
    @idempotent
    def post(self, request: Request, enrolment_id: Any) -> Response:
        """Let a waiting device in, or refuse it."""
        given = self.validated(DecisionInput, request.data)
        decide = (
            enrolment.approve_enrolment
            if self.is_approval
            else enrolment.reject_enrolment
        )
        return Response(
            EnrolmentOutput(
                decide(actor=acting_person(request), enrolment_id=enrolment_id, **given)
            ).data
        )
