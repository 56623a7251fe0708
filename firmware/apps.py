"""Images: registry, approval, signature, encrypted storage."""

from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured

from firmware.places import check_settings


def check_storage(**_kwargs: Any) -> list[CheckMessage]:
    """Name a wrong setting of storage before anything starts."""
    try:
        check_settings()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="firmware.E001")]
    return []


class FirmwareConfig(AppConfig):
    name = "firmware"
    verbose_name = "Firmware"

    def ready(self) -> None:
        """Have the settings checked by every command that checks anything."""
        register(check_storage)
