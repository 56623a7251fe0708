"""Devices: registry, groups, credentials."""

from importlib import import_module

from django.apps import AppConfig


class DevicesConfig(AppConfig):
    name = "devices"
    verbose_name = "Devices"

    def ready(self) -> None:
        """Make known to the schema how devices authenticate."""
        import_module("devices.api.schema")
