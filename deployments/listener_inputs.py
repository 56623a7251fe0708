"""What Admins send of those who are notified, checked alike for API and console."""

from typing import Any

from rest_framework import serializers

from deployments.rules.events import NEEDS_A_PERSON, NOTIFIED, NOTIFIED_CHOICES
from hotswap.common.api.serializers import (
    BoundedListField,
    CamelSerializer,
    StrictBooleanField,
    StrictCharField,
    StrictChoiceField,
)


def _events_field(help_text: str = "empty: all", **options: Any) -> BoundedListField:
    return BoundedListField(
        child=StrictChoiceField(choices=NOTIFIED_CHOICES),
        required=False,
        max_length=len(NOTIFIED),
        help_text=help_text,
        **options,
    )


def _events_for_people() -> BoundedListField:
    """What a person is told, who has not said what: what needs one."""
    names = ", ".join(NEEDS_A_PERSON)
    return _events_field(
        f"empty: all; left out: {names}", default=lambda: list(NEEDS_A_PERSON)
    )


def _description_field(**options: Any) -> StrictCharField:
    return StrictCharField(max_length=200, required=False, allow_blank=True, **options)


class StrictEmailField(serializers.EmailField):
    """JSON strings only."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class WebhookInput(CamelSerializer):
    url = StrictCharField(max_length=2000)
    events = _events_field(default=list)
    description = _description_field(default="")


class ListenerChangesInput(CamelSerializer):
    events = _events_field()
    description = _description_field()
    enabled = StrictBooleanField(required=False)


class WebhookChangesInput(ListenerChangesInput):
    url = StrictCharField(max_length=2000, required=False)


class MailRecipientInput(CamelSerializer):
    address = StrictEmailField(max_length=254)
    events = _events_for_people()
    description = _description_field(default="")


class GatewayInput(CamelSerializer):
    url = StrictCharField(
        max_length=2000, help_text="an apprise URL; it is not shown again"
    )
    events = _events_for_people()
    description = _description_field(default="")


class GatewayChangesInput(ListenerChangesInput):
    url = StrictCharField(max_length=2000, required=False)
