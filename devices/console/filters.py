"""The filters of the list of devices."""

from typing import Any, cast
from uuid import UUID

from django.contrib import messages
from django.db.models import QuerySet
from django.utils import timezone
from unfold.contrib.filters.admin import RadioFilter

from devices.choices import DeviceHealth, DeviceStatus
from devices.console.fields import region_choices
from devices.models import Device, DeviceGroup
from devices.querysets import DeviceQuerySet
from devices.selectors import group_condition
from firmware.models import DeviceModel
from hotswap.common.console.text_filter import TextFilter

SHOWN_MODELS = 50
SHOWN_GROUPS = 200


class DeviceStatusFilter(RadioFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return list(DeviceStatus.choices)

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        value = self.value()
        if value not in DeviceStatus.values:
            return queryset
        return cast(DeviceQuerySet, queryset).with_status(value, timezone.now())


class HealthFilter(RadioFilter):
    title = "health"
    parameter_name = "health"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return list(DeviceHealth.choices)

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        value = self.value()
        if value not in DeviceHealth.values:
            return queryset
        return cast(DeviceQuerySet, queryset).with_health(value, timezone.now())


class RegionFilter(RadioFilter):
    title = "region"
    parameter_name = "region"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return region_choices()

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        return queryset.filter(region=self.value()) if self.value() else queryset


class ModelFilter(RadioFilter):
    title = "model"
    parameter_name = "model"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        names = DeviceModel.objects.order_by("name").values_list("name", flat=True)
        return [(name, name) for name in names[:SHOWN_MODELS]]

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        return queryset.filter(model__name=self.value()) if self.value() else queryset


class GroupFilter(RadioFilter):
    title = "group"
    parameter_name = "group"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        groups = DeviceGroup.objects.values_list("pk", "name")[:SHOWN_GROUPS]
        return [(str(pk), name) for pk, name in groups]

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        if not self.value():
            return queryset
        try:
            pk = UUID(self.value())
        except ValueError:
            return queryset.none()
        return queryset.filter(group_condition(DeviceGroup.objects.filter(pk=pk)))


class VersionFilter(TextFilter):
    title = "version"
    parameter_name = "version"
    hint = "2.5.0"

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        return (
            queryset.filter(firmware_version=self.text()) if self.text() else queryset
        )


class ComponentFilter(TextFilter):
    """A component of what runs, by its bill of materials."""

    title = "component"
    parameter_name = "component"
    hint = "openssl@3.0.1"

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        if not self.text():
            return queryset
        return cast(DeviceQuerySet, queryset).running_component(self.text())


class TagFilter(TextFilter):
    """One tag or several, all of which must be there."""

    title = "tag"
    parameter_name = "tag"
    hint = "site:plant-7"

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        for part in filter(None, map(str.strip, self.text().split(","))):
            name, colon, value = part.partition(":")
            if not colon:
                messages.warning(request, f"Write a tag as name:value, not {part!r}.")
                return queryset.none()
            queryset = queryset.filter(tags__contains={name.strip(): value.strip()})
        return queryset


class EnabledFilter(RadioFilter):
    title = "updates"
    parameter_name = "enabled"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "enabled"), ("no", "disabled")]

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        if self.value() not in ("yes", "no"):
            return queryset
        return queryset.filter(enabled=self.value() == "yes")


class CertificateFilter(RadioFilter):
    title = "client certificate"
    parameter_name = "certificate"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("expiring", "expires soon or has expired")]

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        devices = cast(DeviceQuerySet, queryset)
        if self.value() == "expiring":
            return devices.with_expiring_certificate(timezone.now())
        return devices


class KeyFilter(RadioFilter):
    title = "key"
    parameter_name = "key"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("expiring", "expires soon or has expired"), ("alarm", "alarm")]

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        devices = cast(DeviceQuerySet, queryset)
        if self.value() == "expiring":
            return devices.with_expiring_key(timezone.now())
        return devices.alarmed() if self.value() == "alarm" else devices
