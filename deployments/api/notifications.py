"""Receivers of each channel, and what was delivered to them."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.models import Delivery, Receiver, Webhook
from deployments.notifications.channels.registry import CHANNELS, OF_MODEL
from deployments.notifications.channels.types import Channel
from deployments.receiver_inputs import ADDITIONS, CHANGES
from deployments.services import receivers
from hotswap.common.api.base import ApiView, ListView, acting_person
from hotswap.common.api.etags import expected_etags
from hotswap.common.api.idempotency import idempotent, idempotent_without
from hotswap.common.api.serializers import SHOWN_ONCE, CamelSerializer, EmptyInput
from hotswap.common.etags import etag_of
from hotswap.common.roles import Role


class ReceiverOutput(CamelSerializer):
    id = serializers.UUIDField()
    events = serializers.ListField(child=serializers.CharField())
    description = serializers.CharField()
    enabled = serializers.BooleanField()
    disabled_reason = serializers.CharField()
    created_at = serializers.DateTimeField()


def _output_of(channel: Channel) -> type[ReceiverOutput]:
    endpoint = channel.endpoint
    fields: dict[str, Any] = {
        endpoint.shown or endpoint.name: serializers.CharField(
            help_text=endpoint.shown_help
        )
    }
    if channel.has_secret:
        fields["previous_secret_until"] = serializers.DateTimeField(
            allow_null=True, help_text="until then the former secret signs too"
        )
    return type(f"{channel.model.__name__}Output", (ReceiverOutput,), fields)


OUTPUTS = {channel.model: _output_of(channel) for channel in CHANNELS}


CREATED_WEBHOOK = type(
    "CreatedWebhookOutput",
    (OUTPUTS[Webhook],),
    {"secret": serializers.CharField(allow_null=True, help_text=SHOWN_ONCE)},
)


class DeliveryOutput(CamelSerializer):
    id = serializers.UUIDField()
    notification_id = serializers.UUIDField(help_text="the header webhook-id")
    type = serializers.CharField(source="notification.type")
    payload = serializers.DictField(source="notification.payload")
    status = serializers.CharField()
    attempts = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    last_attempt_at = serializers.DateTimeField(allow_null=True)
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    delivered_at = serializers.DateTimeField(allow_null=True)
    response_status = serializers.IntegerField(allow_null=True)
    error = serializers.CharField()


class ReceiversView(ListView):
    """Those of one kind, newest first."""

    roles = {"GET": Role.ADMIN, "POST": Role.ADMIN}
    ordering = "-created_at"
    kind: ClassVar[type[Receiver]]

    def created(self, receiver: Receiver, **more: str) -> Response:
        route = OF_MODEL[self.kind].route
        headers = {"Location": f"/api/v1/{route}/{receiver.pk}"}
        if more:
            headers["Cache-Control"] = "no-store"
        shown = self.output_class(receiver).data
        return Response({**shown, **more}, status=201, headers=headers)


class ReceiverView(ApiView):
    """One of them: read, changed, removed."""

    roles = {"GET": Role.ADMIN, "PATCH": Role.ADMIN, "DELETE": Role.ADMIN}
    kind: ClassVar[type[Receiver]]

    def answer(self, receiver: Receiver) -> Response:
        return Response(
            OUTPUTS[self.kind](receiver).data, headers={"ETag": etag_of(receiver)}
        )

    def get(self, request: Request, receiver_id: Any) -> Response:
        return self.answer(receivers.get_receiver(self.kind, receiver_id))

    def patch(self, request: Request, receiver_id: Any) -> Response:
        """Change the fields that are named; the others stay."""
        receiver = receivers.change_receiver(
            actor=acting_person(request),
            kind=self.kind,
            receiver_id=receiver_id,
            changes=self.validated(CHANGES[self.kind], request.data),
            expected=expected_etags(request),
        )
        return self.answer(receiver)

    def delete(self, request: Request, receiver_id: Any) -> Response:
        """Remove it with the log of its deliveries."""
        receivers.delete_receiver(
            actor=acting_person(request), kind=self.kind, receiver_id=receiver_id
        )
        return Response(status=204)


class DeliveriesView(ListView):
    """What was and will be sent, newest first."""

    roles = {"GET": Role.ADMIN}
    kind: ClassVar[type[Receiver]] = Webhook
    queryset = Delivery.objects.select_related("notification")
    output_class = DeliveryOutput
    ordering = "-created_at"

    def get_queryset(self) -> Any:
        receiver = receivers.get_receiver(self.kind, self.kwargs["receiver_id"])
        return Delivery.objects.of(receiver).select_related("notification")


class SendTestView(ApiView):
    roles = {"POST": Role.ADMIN}
    kind: ClassVar[type[Receiver]] = Webhook

    @extend_schema(request=EmptyInput, responses={202: DeliveryOutput})
    @idempotent
    def post(self, request: Request, receiver_id: Any) -> Response:
        """Send a notification that tells nothing, to see that it arrives."""
        self.validated(EmptyInput, request.data)
        delivery = receivers.send_test(
            actor=acting_person(request), kind=self.kind, receiver_id=receiver_id
        )
        return Response(DeliveryOutput(delivery).data, status=202)


class ResendView(ApiView):
    roles = {"POST": Role.ADMIN}
    kind: ClassVar[type[Receiver]] = Webhook

    @extend_schema(request=EmptyInput, responses=DeliveryOutput)
    @idempotent
    def post(self, request: Request, receiver_id: Any, delivery_id: Any) -> Response:
        """Send a delivery anew, under the same id."""
        self.validated(EmptyInput, request.data)
        delivery = receivers.resend(
            actor=acting_person(request),
            kind=self.kind,
            receiver_id=receiver_id,
            delivery_id=delivery_id,
        )
        return Response(DeliveryOutput(delivery).data)


class RotateSecretView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=EmptyInput, responses=CREATED_WEBHOOK)
    @idempotent_without("secret")
    def post(self, request: Request, receiver_id: Any) -> Response:
        """Make a new secret; the former signs too for a day."""
        self.validated(EmptyInput, request.data)
        webhook, secret = receivers.rotate_secret(
            actor=acting_person(request), webhook_id=receiver_id
        )
        return Response(
            {**OUTPUTS[Webhook](webhook).data, "secret": secret},
            headers={"Cache-Control": "no-store", "ETag": etag_of(webhook)},
        )


def list_view(channel: Channel) -> type[ReceiversView]:
    """Return the view of all receivers of a channel."""
    kind = channel.model
    addition = ADDITIONS[kind]

    @extend_schema(request=addition, responses={201: CREATED_WEBHOOK})
    @idempotent_without("secret")
    def add_with_secret(self: ReceiversView, request: Request) -> Response:
        given = self.validated(addition, request.data)
        receiver, secret = receivers.create_webhook(
            actor=acting_person(request), **given
        )
        return self.created(receiver, secret=secret)

    @extend_schema(request=addition, responses={201: OUTPUTS[kind]})
    @idempotent
    def add(self: ReceiversView, request: Request) -> Response:
        given = self.validated(addition, request.data)
        return self.created(
            receivers.create_receiver(actor=acting_person(request), kind=kind, **given)
        )

    post = add_with_secret if channel.has_secret else add
    post.__doc__ = channel.about_adding
    members = {
        "__doc__": channel.about,
        "kind": kind,
        "queryset": kind._default_manager.all(),
        "output_class": OUTPUTS[kind],
        "post": post,
    }
    return type(f"{kind.__name__}sView", (ReceiversView,), members)


def single_view(channel: Channel) -> type[ReceiverView]:
    """Return the view of one receiver of a channel."""
    kind = channel.model
    name = f"{kind.__name__}View"
    described = extend_schema_view(
        get=extend_schema(responses=OUTPUTS[kind]),
        patch=extend_schema(request=CHANGES[kind], responses=OUTPUTS[kind]),
        delete=extend_schema(responses={204: None}),
    )
    return described(type(name, (ReceiverView,), {"kind": kind}))
