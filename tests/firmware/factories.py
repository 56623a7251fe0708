"""Device models and firmware, brought into each state through the services."""

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

import factory

from firmware.models import DeviceModel, Firmware
from firmware.services.approval import (
    approve_firmware,
    deprecate_firmware,
    reject_firmware,
)
from firmware.services.device_models import create_device_model
from firmware.services.keys import current_storage_key
from firmware.services.uploads import register_firmware
from firmware.storage import ImageReceiver, StagedImage
from tests.common.factories import PersonFactory


class DeviceModelFactory(factory.Factory[DeviceModel]):
    class Meta:
        model = DeviceModel

    name = factory.Sequence(lambda number: f"model-{number}")
    actor = None

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> DeviceModel:
        known = DeviceModel.objects.filter(name=kwargs["name"]).first()
        return known or create_device_model(**kwargs)


@contextlib.contextmanager
def staged_image(content: bytes) -> Iterator[StagedImage]:
    """Give a staged image of these bytes; what is not published goes at the end."""
    receiver = ImageReceiver(current_storage_key(), max_bytes=1 << 30)
    try:
        receiver.write(content)
        yield receiver.finish()
    finally:
        receiver.discard()


class FirmwareFactory(factory.Factory[Firmware]):
    """A Draft; traits take it on through the services."""

    class Meta:
        model = Firmware

    model_name = "sensor-v1"
    version = factory.Sequence(lambda number: f"1.0.{number}")
    content = factory.LazyFunction(lambda: secrets.token_bytes(1000))
    actor = factory.SubFactory(PersonFactory, admin=True)

    class Params:
        approved = False
        rejected = False
        deprecated = False

    @classmethod
    def create(cls, **kwargs: Any) -> Any:
        verbs = {
            name: kwargs.pop(name, False)
            for name in ("approved", "rejected", "deprecated")
        }
        firmware = super().create(**kwargs)
        if not any(verbs.values()):
            return firmware
        other = PersonFactory.create(admin=True)
        if verbs["approved"] or verbs["deprecated"]:
            firmware = approve_firmware(actor=other, firmware_id=firmware.pk)
        if verbs["rejected"]:
            firmware = reject_firmware(
                actor=other, firmware_id=firmware.pk, comment="not good"
            )
        if verbs["deprecated"]:
            firmware, _ = deprecate_firmware(
                actor=other, firmware_id=firmware.pk, reason="replaced"
            )
        return firmware

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> Firmware:
        DeviceModelFactory.create(name=kwargs["model_name"])
        with staged_image(kwargs.pop("content")) as staged:
            firmware, _ = register_firmware(staged=staged, **kwargs)
        return firmware
