"""Typed filters of the device list."""

import contextlib
from typing import Any, cast

import django_filters
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.utils import timezone
from rest_framework import serializers

from devices.choices import DeviceHealth, DeviceStatus
from devices.models import Device, DeviceGroup
from devices.querysets import DeviceQuerySet
from devices.selectors import group_condition
from firmware.api.filters import ModelFilter, VersionFilter
from hotswap.common.api.filters import ChoiceFilter, RepeatableFilter, TruthFilter

# What an index answers at any depth. There is none on what heartbeats change, such as
# the last contact: it would double the cost of every heartbeat.
SORTS = ("deviceId", "-deviceId")


class TagFilter(RepeatableFilter):
    """`tag=site:plant-7`: the tag has this value; given twice, both must hold."""

    def filter(self, qs: QuerySet[Any], value: list[str]) -> QuerySet[Any]:
        for text in value:
            name, colon, wanted = text.partition(":")
            if not (name and colon):
                raise serializers.ValidationError(
                    {"tag": ["must be a name and a value, as in site:plant-7"]},
                    code="invalid",
                )
            qs = qs.filter(tags__contains={name: wanted})
        return qs


class RegionFilter(django_filters.CharFilter):
    """One of the regions of this installation; any other is refused."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        if value and value not in settings.REGIONS:
            names = ", ".join(settings.REGIONS)
            raise serializers.ValidationError(
                {"region": [f"there is no region {value!r}; known are: {names}"]},
                code="unknown_region",
            )
        return super().filter(qs, value)


class DeviceFilter(django_filters.FilterSet):
    model = ModelFilter()
    region = RegionFilter()
    status = ChoiceFilter(choices=DeviceStatus.choices, method="filter_status")
    health = ChoiceFilter(
        choices=DeviceHealth.choices,
        method="filter_health",
        help_text="unknown: offline, or has never reported",
    )
    enabled = TruthFilter()
    firmwareVersion = VersionFilter("firmware_version")
    firmwareChecksum = django_filters.CharFilter("firmware_checksum")
    component = django_filters.CharFilter(
        method="filter_component",
        max_length=512,
        help_text="of what runs: a package URL, `name`, or `name@version`",
    )
    group = django_filters.CharFilter(method="filter_group")
    tag = TagFilter()
    keyExpiring = TruthFilter(method="filter_key_expiring")
    certificateExpiring = TruthFilter(method="filter_certificate_expiring")
    alarm = TruthFilter(method="filter_alarm")
    search = django_filters.CharFilter(
        method="filter_search", help_text="a part of the device id, in any case"
    )

    def filter_key_expiring(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        devices = cast(DeviceQuerySet, queryset)
        return devices.with_expiring_key(timezone.now(), wanted=value == "true")

    def filter_certificate_expiring(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        devices = cast(DeviceQuerySet, queryset)
        return devices.with_expiring_certificate(timezone.now(), wanted=value == "true")

    def filter_alarm(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        return queryset.filter(alarm_at__isnull=value != "true")

    def filter_component(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        return cast(DeviceQuerySet, queryset).running_component(value)

    def filter_status(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        return cast(DeviceQuerySet, queryset).with_status(value, timezone.now())

    def filter_health(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        return cast(DeviceQuerySet, queryset).with_health(value, timezone.now())

    def filter_group(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        """By the group's name or id."""
        wanted = Q(name=value)
        with contextlib.suppress(ValidationError):
            wanted |= Q(pk=DeviceGroup._meta.pk.to_python(value))
        groups = list(DeviceGroup.objects.filter(wanted))
        if not groups:
            raise serializers.ValidationError(
                {"group": [f"there is no group {value!r}"]}, code="unknown_group"
            )
        return queryset.filter(group_condition(groups))

    def filter_search(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        return cast(DeviceQuerySet, queryset).named_like(value)


class DeviceListFilter(DeviceFilter):
    """The filters, and how the list is shown."""

    sort = ChoiceFilter(
        choices=[(name, name) for name in SORTS], method="leave_to_the_pages"
    )
    include = ChoiceFilter(
        choices=[("groups", "groups")],
        method="leave_to_the_pages",
        help_text="name the groups of each device, too",
    )

    def leave_to_the_pages(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        return queryset
