"""OpenAPI: names, errors, keys and headers as the API really has them."""

import re
from typing import Any

from drf_spectacular.extensions import (
    OpenApiAuthenticationExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from hotswap.common.api.authentication import PERSON_SCHEME
from hotswap.common.api.etags import ETAG_LIST
from hotswap.common.api.idempotency import MAX_KEY_LENGTH
from hotswap.common.api.middleware import PROBLEM_TYPE
from hotswap.common.api.serializers import CamelSerializer
from hotswap.common.roles import Role

# Kinds of objects that people call by another name than their path.
KIND_NAMES = {"auth": "Login", "people": "Users", "quarantines": "Quarantine"}
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    location=OpenApiParameter.HEADER,
    type={"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH},
    description=(
        "The same key again within 24 hours repeats the answer and acts once. "
        "Printable characters."
    ),
)
IF_MATCH = OpenApiParameter(
    "If-Match",
    location=OpenApiParameter.HEADER,
    type={"type": "string", "pattern": rf"^(?:\*|{ETAG_LIST.pattern})$"},
    description="Refuse (412) unless the ETag is still this one.",
)

COUNT = OpenApiParameter(
    "count",
    type=bool,
    description="Also count all rows that the filters leave, in `count`.",
)


class ProblemErrorOutput(CamelSerializer):
    pointer = serializers.CharField(help_text="JSON pointer (RFC 6901); empty: all")
    code = serializers.CharField()
    detail = serializers.CharField()


class ProblemOutput(CamelSerializer):
    """A problem document (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField(help_text="stable, for programs")
    trace_id = serializers.CharField()
    errors = ProblemErrorOutput(many=True)  # type: ignore[assignment]


class DeclaredScheme(OpenApiAuthenticationExtension):
    """What an authentication class declares of itself."""

    target_class = "hotswap.common.api.authentication.DeclaredAuthentication"
    match_subclasses = True

    @property
    def name(self) -> str:  # type: ignore[override]
        return str(self.target.scheme_name)

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return dict(self.target.scheme)


class DurationExtension(OpenApiSerializerFieldExtension):
    target_class = "hotswap.common.api.serializers.DurationField"

    def map_serializer_field(
        self, auto_schema: AutoSchema, direction: str
    ) -> dict[str, Any]:
        return {"type": "string", "format": "duration", "examples": ["PT30M"]}


class HotSwapSchema(AutoSchema):
    """One tag for each kind of object; roles, problems and headers of operations."""

    def get_tags(self) -> list[str]:
        kind = self.path.removeprefix("/api/v1/").split("/")[0]
        return [KIND_NAMES.get(kind, kind.replace("-", " ").capitalize())]

    def get_summary(self) -> str | None:
        """Return the first sentence of the description, as the title of a line."""
        described = (super().get_description() or "").partition("\n\n")[0]
        first = re.split(r"\.(?:\s|$)|[:;] ", " ".join(described.split()))[0]
        return first or None

    def _is_list_view(self, serializer: Any = None) -> bool:
        if isinstance(serializer, serializers.ListSerializer):
            return True
        return self.method == "GET" and hasattr(self.view, "output_class")

    def _roles(self) -> tuple[Role, ...]:
        view: Any = self.view
        needed = view.roles[self.method]
        return needed if isinstance(needed, tuple) else (needed,)

    def get_description(self) -> str:  # type: ignore[override]
        described: str = super().get_description() or ""
        if Role.ANYONE in self._roles():
            return described
        named = " or ".join(role.value for role in self._roles())
        return f"{described}\n\nNeeds the role {named}.".strip()

    def get_auth(self) -> list[dict[str, Any]]:
        """Name the schemes of people, or of devices, as the roles are."""
        roles = set(self._roles())
        is_of_people = bool(roles - {Role.DEVICE, Role.ANYONE})
        return [
            scheme
            for scheme in super().get_auth()
            if (is_of_people if PERSON_SCHEME in scheme else Role.DEVICE in roles)
        ]

    def get_override_parameters(self) -> list[Any]:
        method = getattr(self.view, self.method.lower())
        found = list(super().get_override_parameters())
        if getattr(method, "is_idempotent", False):
            found.append(IDEMPOTENCY_KEY)
        if self._is_list_view():
            found.append(COUNT)
        if self.method in {"PUT", "PATCH"}:
            found.append(IF_MATCH)
        return found

    def _map_basic_serializer(self, serializer: Any, direction: str) -> dict[str, Any]:
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)
        if (
            direction == "request"
            and isinstance(serializer, CamelSerializer)
            and not serializer.takes_unknown
        ):
            schema["additionalProperties"] = False
        return schema

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        bodies["default"] = self._get_response_for_code(
            ProblemOutput, "default", [PROBLEM_TYPE]
        )
        bodies["default"]["description"] = "The request was refused."
        return bodies
