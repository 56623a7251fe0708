"""Typed filters of firmware."""

from typing import Any, cast

import django_filters
from django import forms
from django.db.models import Q, QuerySet
from rest_framework import serializers

from firmware.choices import FirmwareStatus
from firmware.models import DeviceModel, Firmware
from firmware.querysets import FirmwareQuerySet
from firmware.versions import VersionScheme, check_version
from hotswap.common.api.filters import ChoiceFilter, TruthFilter


class VersionFormField(forms.CharField):
    """A version of any scheme in a query."""

    def clean(self, value: Any) -> str:
        text: str = super().clean(value)
        if text:
            try:
                check_version(text, VersionScheme.OPAQUE)
            except ValueError as error:
                raise forms.ValidationError(str(error), code="invalid") from None
        return text


class VersionFilter(django_filters.CharFilter):
    """Exactly this version, letter by letter."""

    field_class = VersionFormField


class ModelFilter(django_filters.CharFilter):
    """By the name of a model of the catalogue; any other name is refused."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        if not value:
            return qs
        model = DeviceModel.objects.filter(name=value).first()
        if model is None:
            raise serializers.ValidationError(
                {"model": [f"there is no device model {value!r}"]},
                code="unknown_model",
            )
        return qs.filter(model=model)


# By precedence, versions of equal precedence are in the order of their uploads.
SORTS = {
    "createdAt": ("created_at", "pk"),
    "-createdAt": ("-created_at", "-pk"),
    "version": ("precedence", "created_at", "pk"),
    "-version": ("-precedence", "-created_at", "-pk"),
}


class FirmwareFilter(django_filters.FilterSet):
    model = ModelFilter()
    status = ChoiceFilter(choices=FirmwareStatus.choices)
    version = VersionFilter()
    checksum = django_filters.CharFilter("sha256")
    damaged = TruthFilter("damaged_at__isnull", method="filter_damaged")
    search = django_filters.CharFilter(method="filter_search")
    component = django_filters.CharFilter(method="filter_component", max_length=512)
    sort = ChoiceFilter(
        choices=[(name, name) for name in SORTS], method="leave_to_the_pages"
    )

    def filter_damaged(
        self, queryset: QuerySet[Firmware], name: str, value: str
    ) -> QuerySet[Firmware]:
        return queryset.filter(damaged_at__isnull=value == "false")

    def filter_component(
        self, queryset: QuerySet[Firmware], name: str, value: str
    ) -> QuerySet[Firmware]:
        """By what it is made of: a package URL, `name`, or `name@version`."""
        return cast(FirmwareQuerySet, queryset).made_of(value)

    def filter_search(
        self, queryset: QuerySet[Firmware], name: str, value: str
    ) -> QuerySet[Firmware]:
        """By a part of the version, the model or the notes, or a whole digest."""
        digest = value.lower()
        return queryset.filter(
            Q(version__icontains=value)
            | Q(model__name__icontains=value)
            | Q(release_notes__icontains=value)
            | Q(sha256=digest)
            | Q(sha1=digest)
            | Q(md5=digest)
        )

    def leave_to_the_pages(
        self, queryset: QuerySet[Firmware], name: str, value: str
    ) -> QuerySet[Firmware]:
        return queryset
