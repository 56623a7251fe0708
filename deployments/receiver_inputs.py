"""What Admins send of those who are notified, checked alike for API and console."""

from typing import Any

from rest_framework import serializers

from deployments.notifications.channels.registry import CHANNELS
from deployments.notifications.channels.types import Channel
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
        f"empty: all; omitted: {names}", default=lambda: list(NEEDS_A_PERSON)
    )


def _description_field(**options: Any) -> StrictCharField:
    return StrictCharField(max_length=200, required=False, allow_blank=True, **options)


class StrictEmailField(serializers.EmailField):
    """JSON strings only."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class ReceiverChangesInput(CamelSerializer):
    events = _events_field()
    description = _description_field()
    enabled = StrictBooleanField(required=False)


def _endpoint_field(channel: Channel, **options: Any) -> serializers.Field:
    endpoint = channel.endpoint
    field = StrictEmailField if endpoint.is_mail_address else StrictCharField
    return field(max_length=endpoint.maximum_length, **options)


def _input_of(channel: Channel) -> type[CamelSerializer]:
    is_for_people = channel.is_for_people
    return type(
        f"{channel.model.__name__}Input",
        (CamelSerializer,),
        {
            channel.endpoint.name: _endpoint_field(
                channel, help_text=channel.endpoint.input_help
            ),
            "events": (
                _events_for_people() if is_for_people else _events_field(default=list)
            ),
            "description": _description_field(default=""),
        },
    )


def _changes_of(channel: Channel) -> type[CamelSerializer]:
    if not channel.endpoint.is_changeable:
        return ReceiverChangesInput
    return type(
        f"{channel.model.__name__}ChangesInput",
        (ReceiverChangesInput,),
        {channel.endpoint.name: _endpoint_field(channel, required=False)},
    )


# What is sent to add a receiver of a channel, and to change one.
ADDITIONS = {channel.model: _input_of(channel) for channel in CHANNELS}
CHANGES = {channel.model: _changes_of(channel) for channel in CHANNELS}
