"""Devices and groups, made through the services."""

import itertools
from datetime import datetime
from typing import Any

import factory

from devices.models import Device, DeviceGroup, EnrolmentToken
from devices.rules import Rule
from devices.services import enrolment, groups, registry
from health.services.heartbeats import record_heartbeat
from hotswap.common.tokens import DeviceToken
from tests.common.factories import PersonFactory
from tests.firmware.factories import DeviceModelFactory
from tests.health.factories import HeartbeatFactory

_numbers = itertools.count(1)


class DeviceFactory(factory.Factory[Device]):
    """A device; `key_of` gives its API key."""

    class Meta:
        model = Device

    device_id = factory.LazyFunction(lambda: f"device-{next(_numbers):04}")
    model_name = "sensor-v1"
    actor = factory.SubFactory(PersonFactory, operator=True)

    @classmethod
    def create(
        cls,
        *,
        disabled: bool = False,
        revoked: bool = False,
        heard_at: datetime | None = None,
        **kwargs: Any,
    ) -> Any:
        """Register a device; traits take it on through the services."""
        device = super().create(**kwargs)
        if not (disabled or revoked or heard_at):
            return device
        actor = PersonFactory.create(operator=True)
        if disabled:
            registry.change_device(
                actor=actor, device_id=device.device_id, changes={"enabled": False}
            )
        if heard_at is not None:
            record_heartbeat(
                device=device, beat=HeartbeatFactory.create(), now=heard_at
            )
        if revoked:
            registry.revoke_device(actor=actor, device_id=device.device_id)
        return device

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> Device:
        DeviceModelFactory.create(name=kwargs["model_name"])
        device, api_key = registry.register_device(**kwargs)
        device.__dict__["api_key"] = api_key
        return device


class GroupFactory(factory.Factory[DeviceGroup]):
    """A static group with the given devices, or a dynamic one by its `rule`."""

    class Meta:
        model = DeviceGroup

    name = factory.Sequence(lambda number: f"group {number}")
    type = "Static"
    actor = factory.SubFactory(PersonFactory, operator=True)
    members = ()

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> DeviceGroup:
        members = kwargs.pop("members")
        if "rule" in kwargs:
            rule = Rule.from_json(kwargs["rule"])
            kwargs |= {"rule": rule, "type": "Dynamic"}
        group = groups.create_group(**kwargs)
        if members:
            groups.add_members(
                actor=kwargs["actor"],
                group_id=group.pk,
                device_ids=[device.device_id for device in members],
            )
        return group


class EnrolmentTokenFactory(factory.Factory[EnrolmentToken]):
    """An enrolment token; `value_of` gives its value."""

    class Meta:
        model = EnrolmentToken

    name = factory.Sequence(lambda number: f"line {number}")
    actor = factory.SubFactory(PersonFactory, admin=True)

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> EnrolmentToken:
        token, value = enrolment.create_enrolment_token(**kwargs)
        token.__dict__["value"] = value
        return token


def value_of(token: EnrolmentToken) -> str:
    """Return the value that was told when the factory made the token."""
    return str(token.__dict__["value"])


def key_of(device: Device) -> str:
    """Return the API key that the registration gave to a device of the factory."""
    return str(device.__dict__["api_key"])


def device_token(device: Device) -> str:
    """Sign an access token for a device, as the exchange of its key does."""
    token = DeviceToken()
    token["sub"] = str(device.pk)
    return str(token)
