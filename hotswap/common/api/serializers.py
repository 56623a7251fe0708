"""Base of all serializers: camelCase on the wire, snake_case in Python."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from rest_framework import serializers

from hotswap.common.durations import format_duration, parse_duration
from hotswap.common.wire import camelize

SHOWN_ONCE = "shown once; null where an Idempotency-Key repeats the answer"
# Of a wrong value in the message about it.
SHOWN_CHARACTERS = 64
# A body of 2 MiB can hold a hundred thousand mistakes; nobody reads so many.
MAX_ERRORS = 100


class CamelSerializer(serializers.Serializer[Any]):
    """Serialize declared fields under camelCase names and refuse unknown ones.

    Free-form maps inside keep their own keys: only declared names are translated.
    """

    # Whether unknown fields are taken all the same, because the body is read by
    # something more lenient, and the fields only describe it.
    takes_unknown: ClassVar[bool] = False

    def get_fields(self) -> dict[str, Any]:
        fields = {}
        for name, field in super().get_fields().items():
            wire = camelize(name)
            if wire != name and field.source is None:
                field.source = name
            fields[wire] = field
        return fields

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                known = ", ".join(
                    name for name, field in self.fields.items() if not field.read_only
                )
                raise serializers.ValidationError(
                    {
                        name: [
                            serializers.ErrorDetail(
                                f"unknown field; known are: {known}", code="unknown"
                            )
                        ]
                        for name in unknown
                    }
                )
        return super().to_internal_value(data)


class DurationField(serializers.Field[timedelta, str, str, Any]):
    """An ISO 8601 duration; canonical on output, no years or months."""

    default_error_messages = {"invalid": "{reason}"}

    def __init__(self, *, minimum: timedelta | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.minimum = minimum

    def to_internal_value(self, data: Any) -> timedelta:
        if not isinstance(data, str):
            self.fail("invalid", reason="must be an ISO 8601 duration such as PT30M")
        try:
            value = parse_duration(data)
        except ValueError as error:
            self.fail("invalid", reason=str(error))
        if self.minimum is not None and value < self.minimum:
            self.fail(
                "invalid", reason=f"must be at least {format_duration(self.minimum)}"
            )
        return value

    def to_representation(self, value: timedelta) -> str:
        return format_duration(value)


class StrictBooleanField(serializers.BooleanField):
    """JSON `true` and `false` only; "yes", 1 and "on" are refused."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class StrictIntegerField(serializers.IntegerField):
    """JSON integers only: neither `"5"` nor `true` nor `5.0`."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return data


class StrictFloatField(serializers.FloatField):
    """JSON numbers only."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        try:
            return float(data)
        except OverflowError:
            self.fail("invalid")


class StrictUUIDField(serializers.UUIDField):
    """JSON strings only; a number is not an id."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class StrictRegexField(serializers.RegexField):
    """JSON strings only, taken as they are."""

    def __init__(self, regex: str | re.Pattern[str], **kwargs: Any) -> None:
        super().__init__(regex, trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class StrictChoiceField(serializers.ChoiceField):
    """JSON strings only; what is none of the choices is told which there are."""

    default_error_messages = {"invalid_choice": "must be one of {known}, not {given}"}

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str) or data not in self.choices:
            known = ", ".join(str(choice) for choice in self.choices)
            given = repr(data)[:SHOWN_CHARACTERS]
            self.fail("invalid_choice", known=known, given=given)
        return super().to_internal_value(data)


NO_ZONE = "has no time zone: add Z for UTC, or an offset such as +01:00"


class ZonedDateTimeField(serializers.DateTimeField):
    """A time that says its zone; one without is refused rather than guessed."""

    default_error_messages = {"no_zone": NO_ZONE}

    def enforce_timezone(self, value: datetime) -> datetime:
        if value.tzinfo is None:
            self.fail("no_zone")
        return super().enforce_timezone(value)


class EmptyInput(CamelSerializer):
    """A body that says nothing: none at all, or `{}`."""


class StrictCharField(serializers.CharField):
    """JSON strings only; a number is not silently turned into a text.

    Its length is that of what is sent, blanks around it included.
    """

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if self.max_length is not None and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        return super().to_internal_value(data)


class BoundedListField(serializers.ListField):
    """A list whose length is looked at before its items are; 100 errors at most."""

    def __init__(self, *, max_length: int, **kwargs: Any) -> None:
        super().__init__(max_length=max_length, **kwargs)

    def run_child_validation(self, data: Any) -> list[Any]:
        assert self.max_length is not None
        if len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        result: list[Any] = []
        errors: dict[str, Any] = {}
        for index, item in enumerate(data):
            try:
                result.append(self.child.run_validation(item))
            except serializers.ValidationError as error:
                errors[str(index)] = error.detail
                if len(errors) == MAX_ERRORS:
                    break
        if errors:
            raise serializers.ValidationError(errors)
        return result
