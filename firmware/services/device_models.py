"""The catalogue of device models (FR-FW-001)."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from firmware.exceptions import (
    ModelExistsError,
    ModelNotFoundError,
    UnknownModelError,
    VersionSchemeInUseError,
)
from firmware.models import DeviceModel, Firmware
from firmware.versions import VersionScheme
from hotswap.common import audit
from hotswap.common.etags import check_match
from hotswap.common.models import User


def create_device_model(
    *,
    actor: User | None,
    name: str,
    description: str = "",
    requires_secure_boot: bool = False,
    version_scheme: VersionScheme = VersionScheme.SEMVER,
) -> DeviceModel:
    """Add a kind of device to the catalogue.

    Args:
        requires_secure_boot: give updates only to devices that report secure boot.
        version_scheme: how the versions of its firmware are written and ordered.

    Raises:
        ModelExistsError: the name is taken.
    """
    with transaction.atomic():
        model, is_new = DeviceModel.objects.get_or_create(
            name=name,
            defaults={
                "description": description,
                "requires_secure_boot": requires_secure_boot,
                "version_scheme": version_scheme.value,
            },
        )
        if not is_new:
            raise ModelExistsError(f"there is a device model {name!r} already")
        audit.record(
            actor=actor,
            verb="device-model.created",
            object_kind="device-model",
            object_id=model.pk,
            details={
                "name": name,
                "requiresSecureBoot": requires_secure_boot,
                "versionScheme": version_scheme.value,
            },
        )
    return model


def found_device_model(model_id: UUID) -> DeviceModel:
    """Return a model of the catalogue by its id.

    Raises:
        ModelNotFoundError: there is none.
    """
    model = DeviceModel.objects.filter(pk=model_id).first()
    if model is None:
        raise ModelNotFoundError("there is no such device model")
    return model


def change_device_model(
    *,
    actor: User,
    model_id: UUID,
    changes: dict[str, Any],
    expected: frozenset[str] | None = None,
) -> DeviceModel:
    """Change what the catalogue says of a kind of device.

    A requirement of secure boot counts from the next launch and the next offer on;
    orders that devices have already go on. A version scheme can be changed while the
    model has no firmware; what its devices say they run is read anew.

    Args:
        changes: any of `description`, `requires_secure_boot`, `version_scheme`.

    Raises:
        ModelNotFoundError, PreconditionFailedError.
        VersionSchemeInUseError: it has firmware, whose versions its scheme orders.
    """
    with transaction.atomic():
        model = (
            DeviceModel.objects.select_for_update(no_key=True)
            .filter(pk=model_id)
            .first()
        )
        if model is None:
            raise ModelNotFoundError("there is no such device model")
        check_match(model, expected)
        changed = [name for name in changes if getattr(model, name) != changes[name]]
        if not changed:
            return model
        if (
            "version_scheme" in changed
            and Firmware.objects.filter(model=model).exists()
        ):
            raise VersionSchemeInUseError(
                f"{model} has firmware, whose versions are {model.version_scheme}: the "
                "scheme can be changed only before the first upload"
            )
        for name in changed:
            setattr(model, name, changes[name])
        model.updated_at = timezone.now()
        model.save(update_fields=[*changed, "updated_at"])
        if "version_scheme" in changed:
            import_string(settings.VERSION_ORDER_CHANGED_HOOK)(model_id=model.pk)
        audit.record(
            actor=actor,
            verb="device-model.changed",
            object_kind="device-model",
            object_id=model.pk,
            details={
                "fields": sorted(changed),
                "requiresSecureBoot": model.requires_secure_boot,
                "versionScheme": model.version_scheme,
            },
            changed=model,
        )
    return model


def device_model_named(name: str) -> DeviceModel:
    """Return a model of the catalogue.

    Raises:
        UnknownModelError: there is none of that name (422).
    """
    model = DeviceModel.objects.filter(name=name).first()
    if model is None:
        raise UnknownModelError(f"there is no device model {name!r}")
    return model
