"""Typed filters of the device list."""

import contextlib
from typing import Any, cast

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.utils import timezone
from rest_framework import serializers

from devices.choices import DeviceStatus
from devices.models import Device, DeviceGroup, GroupMembership
from devices.querysets import DeviceQuerySet
from firmware.api.filters import VersionFilter
from hotswap.common.api.filters import TruthFilter


class TagFilter(django_filters.CharFilter):
    """`tag=site:plant-7`: the tag has this value."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        if not value:
            return qs
        name, colon, wanted = value.partition(":")
        if not (name and colon):
            raise serializers.ValidationError(
                {"tag": ["must be a name and a value, as in site:plant-7"]},
                code="invalid",
            )
        return qs.filter(tags__contains={name: wanted})


class DeviceFilter(django_filters.FilterSet):
    model = django_filters.CharFilter("model__name")
    region = django_filters.CharFilter()
    status = django_filters.ChoiceFilter(
        choices=DeviceStatus.choices, method="filter_status"
    )
    enabled = TruthFilter()
    firmwareVersion = VersionFilter("firmware_version")
    firmwareChecksum = django_filters.CharFilter("firmware_checksum")
    group = django_filters.CharFilter(method="filter_group")
    tag = TagFilter()
    keyExpiring = TruthFilter(method="filter_key_expiring")
    alarm = TruthFilter(method="filter_alarm")
    search = django_filters.CharFilter(method="filter_search")

    def filter_key_expiring(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        devices = cast(DeviceQuerySet, queryset)
        return devices.with_expiring_key(timezone.now(), wanted=value == "true")

    def filter_alarm(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        return queryset.filter(alarm_at__isnull=value != "true")

    def filter_status(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        return cast(DeviceQuerySet, queryset).with_status(value, timezone.now())

    def filter_group(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        """By the group's name or id."""
        wanted = Q(name=value)
        with contextlib.suppress(ValidationError):
            wanted |= Q(pk=DeviceGroup._meta.pk.to_python(value))
        groups = DeviceGroup.objects.filter(wanted)
        members = GroupMembership.objects.filter(group__in=groups)
        return queryset.filter(pk__in=members.values("device"))

    def filter_search(
        self, queryset: QuerySet[Device], name: str, value: str
    ) -> QuerySet[Device]:
        return queryset.filter(device_id__icontains=value)
