"""Typed filters; a parameter nobody knows is refused and the known ones are listed."""

import contextlib
from collections.abc import Sequence
from datetime import UTC
from typing import Any

import django_filters
from django import forms
from django.db.models import Q
from django.utils.dateparse import parse_datetime
from django_filters import fields
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request

from hotswap.common.api.parsers import check_text
from hotswap.common.api.serializers import NO_ZONE

PAGE_PARAMETERS = ("pageSize", "cursor", "count")
MAX_REPEATS = 20


class ChoiceField(fields.ChoiceField):
    """One of the choices; a value that is none of them is told which there are."""

    def validate(self, value: Any) -> None:
        known = [str(choice) for choice, _ in self.choices if choice]
        if value and str(value) not in known:
            raise forms.ValidationError(
                f"must be one of {', '.join(known)}, not {str(value)!r}",
                code="invalid_choice",
            )
        super().validate(value)


class ChoiceFilter(django_filters.ChoiceFilter):
    """Rows whose field has the value of one of the choices."""

    field_class = ChoiceField


# Their values are never empty; django-filter takes an empty one for no filter at all.
TYPED = (
    ChoiceFilter,
    django_filters.IsoDateTimeFilter,
    django_filters.NumberFilter,
    django_filters.UUIDFilter,
)


class StrictFilterBackend(DjangoFilterBackend):
    """The filters of a list; `check_parameters` has refused unknown ones before.

    An id, number, time or choice that is empty is refused: whoever sends one has lost
    a value on the way, and must not be shown everything.
    """

    def filter_queryset(self, request: Request, queryset: Any, view: Any) -> Any:
        found = self.get_filterset_class(view, queryset)
        known = found.base_filters if found is not None else {}
        empty = [
            name
            for name, value in request.query_params.items()
            if not str(value).strip() and isinstance(known.get(name), TYPED)
        ]
        if empty:
            raise ValidationError(
                {name: ["is empty: omit it for no filter"] for name in empty},
                code="empty",
            )
        filters = self.get_filterset(request, queryset, view)
        if filters is None:
            return queryset
        if not filters.is_valid():
            # django-filter would take a `%` in a message, which quotes what was sent,
            # for a place to be filled in.
            raise ValidationError(
                {
                    name: [
                        ErrorDetail(message, code=error.code)
                        for error in errors
                        for message in error.messages
                    ]
                    for name, errors in filters.errors.as_data().items()
                }
            )
        return filters.qs


@extend_schema_field(OpenApiTypes.BOOL)
class TruthFilter(ChoiceFilter):
    """`true` or `false`; django-filter's own takes anything else for no filter."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        choices = (("true", "true"), ("false", "false"))
        super().__init__(*args, choices=choices, **kwargs)

    def filter(self, qs: Any, value: str) -> Any:
        return qs.filter(**{self.field_name: value == "true"}) if value else qs


class ZonedTimeField(fields.IsoDateTimeField):
    """A time that says its zone, in UTC; one without is refused rather than guessed."""

    def to_python(self, value: Any) -> Any:
        with contextlib.suppress(ValueError):
            moment = parse_datetime(str(value).strip())
            if moment is not None and moment.tzinfo is None:
                raise forms.ValidationError(NO_ZONE, code="no_zone")
        moment = super().to_python(value)
        try:
            # PostgreSQL takes no offset of 16 hours or more.
            return None if moment is None else moment.astimezone(UTC)
        except OverflowError:
            raise forms.ValidationError(
                "is before the year 1 or after 9999 in UTC", code="invalid"
            ) from None


class ZonedTimeFilter(django_filters.IsoDateTimeFilter):
    """Rows before, at or after a time."""

    field_class = ZonedTimeField


class RepeatableField(forms.Field):
    """Texts of a parameter that may be given more than once."""

    widget = forms.SelectMultiple

    def to_python(self, value: Any) -> list[str]:
        return [text.strip() for text in value or ()]


@extend_schema_field({"type": "array", "items": {"type": "string"}})
class RepeatableFilter(django_filters.Filter):
    """A parameter that may be given more than once; all that are given must hold."""

    field_class: type[RepeatableField] = RepeatableField


def split_values(values: list[str]) -> list[str]:
    """Return the texts of a parameter that is repeated, or whose commas part them."""
    return [text for value in values for text in value.split(",") if text]


class AnyOfField(RepeatableField):
    """Some of the choices, as a parameter that is repeated or with commas inside."""

    def __init__(self, *, known: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.known = known

    def to_python(self, value: Any) -> list[str]:
        chosen = split_values(super().to_python(value))
        for text in chosen:
            if text not in self.known:
                raise forms.ValidationError(
                    f"must be one of {', '.join(self.known)}, not {text!r}",
                    code="invalid_choice",
                )
        return chosen


class AnyOfFilter(RepeatableFilter):
    """Rows whose field is any of the values that are given."""

    field_class = AnyOfField

    def filter(self, qs: Any, value: list[str]) -> Any:
        return qs.filter(**{f"{self.field_name}__in": value}) if value else qs


@extend_schema_field({"type": "array", "items": {"type": "string"}})
class AnyNameFilter(RepeatableFilter):
    """Rows whose field is any of the names; one that ends in `*` is a beginning."""

    def filter(self, qs: Any, value: list[str]) -> Any:
        wanted = Q()
        for name in split_values(value):
            if name.endswith("*"):
                wanted |= Q(**{f"{self.field_name}__startswith": name[:-1]})
            else:
                wanted |= Q(**{self.field_name: name})
        return qs.filter(wanted)


def check_parameters(
    request: Request, known: set[str], repeatable: set[str] | None = None
) -> None:
    """Refuse query parameters that the route does not have, or that appear twice.

    Raises:
        ValidationError: each unknown parameter, with the list of known ones.
    """
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        names = ", ".join(sorted(known)) or "none"
        raise ValidationError(
            {name: [f"unknown parameter; known are: {names}"] for name in unknown},
            code="unknown",
        )
    for name, values in request.query_params.lists():
        for value in values:
            check_text(value)
        if len(values) > MAX_REPEATS:
            raise ValidationError(
                {name: [f"given more than {MAX_REPEATS} times"]}, code="too_many"
            )
        if len(values) > 1 and name not in (repeatable or ()):
            raise ValidationError({name: ["given twice"]}, code="duplicate")
