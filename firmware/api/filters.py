"""Typed filters of firmware."""

from typing import Any

import django_filters
from django import forms

from firmware.choices import FirmwareStatus
from firmware.versions import parse_version


class VersionFormField(forms.CharField):
    """A semantic version in a query."""

    def clean(self, value: Any) -> str:
        text: str = super().clean(value)
        if text:
            try:
                parse_version(text)
            except ValueError as error:
                raise forms.ValidationError(str(error), code="invalid") from None
        return text


class VersionFilter(django_filters.CharFilter):
    """Exactly this semantic version."""

    field_class = VersionFormField


class FirmwareFilter(django_filters.FilterSet):
    model = django_filters.CharFilter("model__name")
    status = django_filters.ChoiceFilter(choices=FirmwareStatus.choices)
    version = VersionFilter()
