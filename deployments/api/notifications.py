"""Webhooks, mail recipients, and what was delivered to them."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.choices import NotifiedEvent
from deployments.exceptions import RecipientNotFoundError, WebhookNotFoundError
from deployments.models import Delivery, MailRecipient, Webhook
from deployments.services import listeners
from hotswap.common.api.base import ApiView, ListView, acting_person
from hotswap.common.api.idempotency import idempotent
from hotswap.common.api.serializers import CamelSerializer, EmptyInput, StrictCharField
from hotswap.common.roles import Role


def _events_field() -> serializers.ListField:
    return serializers.ListField(
        child=serializers.ChoiceField(choices=NotifiedEvent.choices),
        required=False,
        default=list,
        max_length=len(NotifiedEvent.values),
        help_text="empty: all",
    )


class StrictEmailField(serializers.EmailField):
    """JSON strings only."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class WebhookInput(CamelSerializer):
    url = StrictCharField(max_length=2000)
    events = _events_field()
    description = StrictCharField(
        max_length=200, required=False, default="", allow_blank=True
    )


class WebhookOutput(CamelSerializer):
    id = serializers.UUIDField()
    url = serializers.CharField()
    events = serializers.ListField(child=serializers.CharField())
    description = serializers.CharField()
    enabled = serializers.BooleanField()
    disabled_reason = serializers.CharField()
    created_at = serializers.DateTimeField()


class CreatedWebhookOutput(WebhookOutput):
    secret = serializers.CharField(help_text="shown this once")


class MailRecipientInput(CamelSerializer):
    address = StrictEmailField(max_length=254)
    events = _events_field()


class MailRecipientOutput(CamelSerializer):
    id = serializers.UUIDField()
    address = serializers.CharField()
    events = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()


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


class WebhooksView(ListView):
    """The endpoints that are told of events, newest first."""

    roles = {"GET": Role.ADMIN, "POST": Role.ADMIN}
    queryset = Webhook.objects.all()
    output_class = WebhookOutput
    ordering = "-created_at"

    @extend_schema(request=WebhookInput, responses={201: CreatedWebhookOutput})
    @idempotent
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


class WebhookView(ApiView):
    roles = {"DELETE": Role.ADMIN}

    @extend_schema(responses={204: None})
    def delete(self, request: Request, webhook_id: Any) -> Response:
        """Remove an endpoint with the log of its deliveries."""
        listeners.delete_webhook(actor=acting_person(request), webhook_id=webhook_id)
        return Response(status=204)


class DeliveriesView(ListView):
    roles = {"GET": Role.ADMIN}
    queryset = Delivery.objects.select_related("notification")
    output_class = DeliveryOutput
    ordering = "-created_at"


class WebhookDeliveriesView(DeliveriesView):
    """What was and will be sent to an endpoint, newest first."""

    def get_queryset(self) -> Any:
        webhook = self.kwargs["webhook_id"]
        if not Webhook.objects.filter(pk=webhook).exists():
            raise WebhookNotFoundError("there is no such webhook")
        return super().get_queryset().filter(webhook=webhook)


class ResendView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=EmptyInput, responses=DeliveryOutput)
    @idempotent
    def post(self, request: Request, webhook_id: Any, delivery_id: Any) -> Response:
        """Send a delivery anew, with the same `webhook-id`."""
        self.validated(EmptyInput, request.data)
        delivery = listeners.resend(
            actor=acting_person(request),
            webhook_id=webhook_id,
            delivery_id=delivery_id,
        )
        return Response(DeliveryOutput(delivery).data)


class MailRecipientsView(ListView):
    """The mail addresses that are told of events, newest first."""

    roles = {"GET": Role.ADMIN, "POST": Role.ADMIN}
    queryset = MailRecipient.objects.all()
    output_class = MailRecipientOutput
    ordering = "-created_at"

    @extend_schema(request=MailRecipientInput, responses={201: MailRecipientOutput})
    @idempotent
    def post(self, request: Request) -> Response:
        """Add a mail address."""
        given = self.validated(MailRecipientInput, request.data)
        recipient = listeners.create_mail_recipient(
            actor=acting_person(request), **given
        )
        return Response(MailRecipientOutput(recipient).data, status=201)


class MailRecipientView(ApiView):
    roles = {"DELETE": Role.ADMIN}

    @extend_schema(responses={204: None})
    def delete(self, request: Request, recipient_id: Any) -> Response:
        """Remove a mail address with the log of its mails."""
        listeners.delete_mail_recipient(
            actor=acting_person(request), recipient_id=recipient_id
        )
        return Response(status=204)


class MailDeliveriesView(DeliveriesView):
    """What was and will be sent to a mail address, newest first."""

    def get_queryset(self) -> Any:
        recipient = self.kwargs["recipient_id"]
        if not MailRecipient.objects.filter(pk=recipient).exists():
            raise RecipientNotFoundError("there is no such mail recipient")
        return super().get_queryset().filter(recipient=recipient)
