"""Serializers that describe frozen dataclasses as `hotswap.common.wire` sends them."""

from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from hotswap.common.api.serializers import CamelSerializer
from hotswap.common.wire import camelize, to_wire, wire_fields

Field = serializers.Field[Any, Any, Any, Any]
FIELDS: dict[Any, type[Field]] = {
    str: serializers.CharField,
    int: serializers.IntegerField,
    float: serializers.FloatField,
    bool: serializers.BooleanField,
    datetime: serializers.DateTimeField,
    UUID: serializers.UUIDField,
}


class ReadOutput(CamelSerializer):
    """Base of the derived serializers: the dataclass itself is what is sent."""

    def to_representation(self, instance: Any) -> dict[str, Any]:
        return to_wire(instance)


class OneOfField(Field):
    """One of several dataclasses."""

    def __init__(self, reads: tuple[type, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reads = reads

    def to_representation(self, value: Any) -> dict[str, Any]:
        return to_wire(value)


class OneOfExtension(OpenApiSerializerFieldExtension):
    target_class = "hotswap.common.api.outputs.OneOfField"

    def map_serializer_field(
        self, auto_schema: AutoSchema, direction: Any
    ) -> dict[str, Any]:
        refs = [
            auto_schema.resolve_serializer(output_of(read), direction).ref
            for read in self.target.reads
        ]
        return {"oneOf": refs}


@cache
def output_of(read: type) -> type[ReadOutput]:
    """Return the serializer of a dataclass: `LiveStatus` gives `LiveStatusOutput`.

    Source: FR-FW-007; docs/api.md: the description of the API is checked in.
    """
    members: dict[str, Any] = {"__doc__": read.__doc__, "__module__": read.__module__}
    return type(f"{read.__name__}Output", (ReadOutput,), members | _fields(read))


def _fields(read: type) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for field in wire_fields(read):
        if field.wire.keys:
            (_, kind) = get_args(field.annotation)
            found |= {camelize(key): _field(kind) for key in field.wire.keys}
            continue
        if field.wire.is_flat:
            found |= _fields(field.annotation)
            continue
        kwargs: dict[str, Any] = {}
        if field.wire.help_text:
            kwargs["help_text"] = field.wire.help_text
        if field.wire.is_optional:
            kwargs |= {"required": False, "allow_null": False}
        found[field.name] = _field(field.annotation, **kwargs)
    return found


def _field(annotation: Any, **kwargs: Any) -> Field:
    """Return the field of a type, one that may be null where None is among it."""
    if get_origin(annotation) in (UnionType, Union):
        members = get_args(annotation)
        kinds = tuple(kind for kind in members if kind is not NoneType)
        if len(kinds) < len(members):
            kwargs.setdefault("allow_null", True)
        if len(kinds) > 1:
            return OneOfField(kinds, **kwargs)
        return _field(kinds[0], **kwargs)
    if get_origin(annotation) is tuple:
        (kind, _) = get_args(annotation)
        return serializers.ListField(child=_field(kind), **kwargs)
    if get_origin(annotation) is dict:
        (_, kind) = get_args(annotation)
        return serializers.DictField(child=_field(kind), **kwargs)
    if annotation in FIELDS:
        return FIELDS[annotation](**kwargs)
    return output_of(annotation)(**kwargs)
