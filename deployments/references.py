"""Firmware and groups as people name them: by id, or by what they are called."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from rest_framework import serializers

from deployments.exceptions import FirmwareNotDeployableError, IneligibleDevicesError
from devices.models import DeviceGroup
from firmware.models import Firmware
from hotswap.common.api.serializers import StrictCharField
from hotswap.common.errors import FieldError


def id_in(text: str) -> UUID | None:
    """Return the id that a text is, or None if it is something else."""
    try:
        return UUID(text)
    except ValueError:
        return None


class FirmwareReferenceField(StrictCharField):
    """The id of a firmware, or `MODEL:VERSION` as in `sensor-v1:2.5.0`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=129, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        model, _, version = text.partition(":")
        if id_in(text) is None and not (model and version):
            raise serializers.ValidationError(
                "must be an id, or MODEL:VERSION as in sensor-v1:2.5.0", code="invalid"
            )
        return text


def firmware_id_of(reference: str) -> UUID:
    """Return the id of a firmware that is named by it, or by its model and version.

    Raises:
        FirmwareNotDeployableError: no model has such a version (422).
    """
    firmware_id = id_in(reference)
    if firmware_id is not None:
        return firmware_id
    model, _, version = reference.partition(":")
    found = Firmware.objects.filter(model__name=model, version=version)
    firmware_id = found.values_list("pk", flat=True).first()
    if firmware_id is None:
        raise FirmwareNotDeployableError(
            f"there is no firmware {version} of {model}", code="unknown_firmware"
        )
    return firmware_id


def group_ids_of(references: Sequence[str]) -> tuple[UUID, ...]:
    """Return the ids of groups, each named by its id or its name; a name is unique.

    Raises:
        IneligibleDevicesError: each that does not exist (422).
    """
    ids = {text: pk for text in references if (pk := id_in(text)) is not None}
    names = [text for text in references if text not in ids]
    known = set(
        DeviceGroup.objects.filter(pk__in=ids.values()).values_list("pk", flat=True)
    )
    found = {text: pk for text, pk in ids.items() if pk in known} | dict(
        DeviceGroup.objects.filter(name__in=names).values_list("name", "pk")
    )
    unknown = [
        FieldError(f"/targetGroups/{index}", "unknown_group", f"no group {text!r}")
        for index, text in enumerate(references)
        if text not in found
    ]
    if unknown:
        raise IneligibleDevicesError("a named group does not exist", errors=unknown)
    # One that is named twice counts once.
    return tuple(dict.fromkeys(found[text] for text in references))
