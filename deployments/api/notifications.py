"""Webhooks, mail recipients, gateways, and what was delivered to them."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.listener_inputs import (
    GatewayChangesInput,
    GatewayInput,
    ListenerChangesInput,
    MailRecipientInput,
    WebhookChangesInput,
    WebhookInput,
)
from deployments.models import Delivery, Gateway, Listener, MailRecipient, Webhook
from deployments.services import listeners
from hotswap.common.api.base import ApiView, ListView, acting_person
from hotswap.common.api.etags import expected_etags
from hotswap.common.api.idempotency import idempotent, idempotent_without
from hotswap.common.api.serializers import SHOWN_ONCE, CamelSerializer, EmptyInput
from hotswap.common.etags import etag_of
from hotswap.common.roles import Role


class ListenerOutput(CamelSerializer):
    id = serializers.UUIDField()
    events = serializers.ListField(child=serializers.CharField())
    description = serializers.CharField()
    enabled = serializers.BooleanField()
    disabled_reason = serializers.CharField()
    created_at = serializers.DateTimeField()


class WebhookOutput(ListenerOutput):
    url = serializers.CharField()
    previous_secret_until = serializers.DateTimeField(
        allow_null=True, help_text="until then the former secret signs too"
    )


class CreatedWebhookOutput(WebhookOutput):
    secret = serializers.CharField(allow_null=True, help_text=SHOWN_ONCE)


class MailRecipientOutput(ListenerOutput):
    address = serializers.CharField()


class GatewayOutput(ListenerOutput):
    scheme = serializers.CharField(help_text="all that is shown of the URL")


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


class ListenersView(ListView):
    """Those of one kind, newest first."""

    roles = {"GET": Role.ADMIN, "POST": Role.ADMIN}
    ordering = "-created_at"


class ListenerView(ApiView):
    """One of them: read, changed, removed."""

    roles = {"GET": Role.ADMIN, "PATCH": Role.ADMIN, "DELETE": Role.ADMIN}
    kind: ClassVar[type[Listener]] = Webhook
    changes_class: ClassVar[type[CamelSerializer]] = ListenerChangesInput
    shown_class: ClassVar[type[ListenerOutput]]

    def answer(self, listener: Listener) -> Response:
        return Response(
            self.shown_class(listener).data, headers={"ETag": etag_of(listener)}
        )

    def get(self, request: Request, listener_id: Any) -> Response:
        return self.answer(listeners.get_listener(self.kind, listener_id))

    def patch(self, request: Request, listener_id: Any) -> Response:
        """Change the fields that are named; the others stay."""
        listener = listeners.change_listener(
            actor=acting_person(request),
            kind=self.kind,
            listener_id=listener_id,
            changes=self.validated(self.changes_class, request.data),
            expected=expected_etags(request),
        )
        return self.answer(listener)

    def delete(self, request: Request, listener_id: Any) -> Response:
        """Remove it with the log of its deliveries."""
        listeners.delete_listener(
            actor=acting_person(request), kind=self.kind, listener_id=listener_id
        )
        return Response(status=204)


class DeliveriesView(ListView):
    """What was and will be sent, newest first."""

    roles = {"GET": Role.ADMIN}
    kind: ClassVar[type[Listener]] = Webhook
    queryset = Delivery.objects.select_related("notification")
    output_class = DeliveryOutput
    ordering = "-created_at"

    def get_queryset(self) -> Any:
        listener = listeners.get_listener(self.kind, self.kwargs["listener_id"])
        return Delivery.objects.of(listener).select_related("notification")


class SendTestView(ApiView):
    roles = {"POST": Role.ADMIN}
    kind: ClassVar[type[Listener]] = Webhook

    @extend_schema(request=EmptyInput, responses={202: DeliveryOutput})
    @idempotent
    def post(self, request: Request, listener_id: Any) -> Response:
        """Send a notification that tells nothing, to see that it arrives."""
        self.validated(EmptyInput, request.data)
        delivery = listeners.send_test(
            actor=acting_person(request), kind=self.kind, listener_id=listener_id
        )
        return Response(DeliveryOutput(delivery).data, status=202)


class ResendView(ApiView):
    roles = {"POST": Role.ADMIN}
    kind: ClassVar[type[Listener]] = Webhook

    @extend_schema(request=EmptyInput, responses=DeliveryOutput)
    @idempotent
    def post(self, request: Request, listener_id: Any, delivery_id: Any) -> Response:
        """Send a delivery anew, under the same id."""
        self.validated(EmptyInput, request.data)
        delivery = listeners.resend(
            actor=acting_person(request),
            kind=self.kind,
            listener_id=listener_id,
            delivery_id=delivery_id,
        )
        return Response(DeliveryOutput(delivery).data)


class WebhooksView(ListenersView):
    """The endpoints that are told of events, newest first."""

    queryset = Webhook.objects.all()
    output_class = WebhookOutput

    @extend_schema(request=WebhookInput, responses={201: CreatedWebhookOutput})
    @idempotent_without("secret")
    def post(self, request: Request) -> Response:
        """Add an endpoint; the answer alone holds its secret."""
        given = self.validated(WebhookInput, request.data)
        webhook, secret = listeners.create_webhook(
            actor=acting_person(request), **given
        )
        return Response(
            {**WebhookOutput(webhook).data, "secret": secret},
            status=201,
            headers={
                "Cache-Control": "no-store",
                "Location": f"/api/v1/webhooks/{webhook.pk}",
            },
        )


@extend_schema_view(
    get=extend_schema(responses=WebhookOutput),
    patch=extend_schema(request=WebhookChangesInput, responses=WebhookOutput),
    delete=extend_schema(responses={204: None}),
)
class WebhookView(ListenerView):
    kind = Webhook
    changes_class = WebhookChangesInput
    shown_class = WebhookOutput


class RotateSecretView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=EmptyInput, responses=CreatedWebhookOutput)
    @idempotent_without("secret")
    def post(self, request: Request, listener_id: Any) -> Response:
        """Make a new secret; the former signs too for a day."""
        self.validated(EmptyInput, request.data)
        webhook, secret = listeners.rotate_secret(
            actor=acting_person(request), webhook_id=listener_id
        )
        return Response(
            {**WebhookOutput(webhook).data, "secret": secret},
            headers={"Cache-Control": "no-store", "ETag": etag_of(webhook)},
        )


class MailRecipientsView(ListenersView):
    """The mail addresses that are told of events, newest first."""

    queryset = MailRecipient.objects.all()
    output_class = MailRecipientOutput

    @extend_schema(request=MailRecipientInput, responses={201: MailRecipientOutput})
    @idempotent
    def post(self, request: Request) -> Response:
        """Add a mail address."""
        given = self.validated(MailRecipientInput, request.data)
        recipient = listeners.create_mail_recipient(
            actor=acting_person(request), **given
        )
        return Response(
            MailRecipientOutput(recipient).data,
            status=201,
            headers={"Location": f"/api/v1/mail-recipients/{recipient.pk}"},
        )


@extend_schema_view(
    get=extend_schema(responses=MailRecipientOutput),
    patch=extend_schema(request=ListenerChangesInput, responses=MailRecipientOutput),
    delete=extend_schema(responses={204: None}),
)
class MailRecipientView(ListenerView):
    kind = MailRecipient
    shown_class = MailRecipientOutput


class GatewaysView(ListenersView):
    """The services that pass on short messages, newest first."""

    queryset = Gateway.objects.all()
    output_class = GatewayOutput

    @extend_schema(request=GatewayInput, responses={201: GatewayOutput})
    @idempotent
    def post(self, request: Request) -> Response:
        """Add a service by its apprise URL, of which only the scheme is shown."""
        given = self.validated(GatewayInput, request.data)
        gateway = listeners.create_gateway(actor=acting_person(request), **given)
        return Response(
            GatewayOutput(gateway).data,
            status=201,
            headers={"Location": f"/api/v1/gateways/{gateway.pk}"},
        )


@extend_schema_view(
    get=extend_schema(responses=GatewayOutput),
    patch=extend_schema(request=GatewayChangesInput, responses=GatewayOutput),
    delete=extend_schema(responses={204: None}),
)
class GatewayView(ListenerView):
    kind = Gateway
    changes_class = GatewayChangesInput
    shown_class = GatewayOutput
