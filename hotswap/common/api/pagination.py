"""Lists by keyset cursor: any page of a million rows costs the same."""

from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import DataError
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

PAGE_SIZE = 50
MAX_PAGE_SIZE = 200
CURSOR_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1}
PAGE_SIZE_SCHEMA: dict[str, Any] = {
    "type": "integer",
    "minimum": 1,
    "maximum": MAX_PAGE_SIZE,
    "default": PAGE_SIZE,
}


class KeysetPagination(CursorPagination):
    """`{next, previous, results}`; `count` only when asked for."""

    page_size = PAGE_SIZE
    max_page_size = MAX_PAGE_SIZE
    page_size_query_param = "pageSize"
    cursor_query_param = "cursor"

    def paginate_queryset(
        self, queryset: Any, request: Request, view: Any = None
    ) -> list[Any] | None:
        self.counted: int | None = None
        if request.query_params.get(self.cursor_query_param) == "":
            raise ValidationError({"cursor": ["is not valid"]}, code="invalid")
        wanted = request.query_params.get("count", "false")
        if wanted not in ("true", "false"):
            raise ValidationError({"count": ["must be true or false"]}, code="invalid")
        if wanted == "true":
            self.counted = queryset.count()
        try:
            page: list[Any] | None = super().paginate_queryset(queryset, request, view)
        except NotFound:
            raise ValidationError(
                {"cursor": ["is not valid"]}, code="invalid"
            ) from None
        except (ValueError, TypeError, DjangoValidationError, DataError):
            # The position inside a made-up cursor need not fit the ordering column.
            raise ValidationError(
                {"cursor": ["is not valid"]}, code="invalid"
            ) from None
        return page

    def get_page_size(self, request: Request) -> int | None:
        text = request.query_params.get(self.page_size_query_param)
        if text is None:
            return self.page_size
        if not (text.isascii() and text.isdigit()) or len(text) > 4:
            size = 0
        else:
            size = int(text)
        if not 1 <= size <= MAX_PAGE_SIZE:
            raise ValidationError(
                {"pageSize": [f"must be a number from 1 to {MAX_PAGE_SIZE}"]},
                code="invalid",
            )
        return size

    def get_paginated_response(self, data: Any) -> Response:
        body = {
            "next": self.get_next_link(),
            "previous": self.get_previous_link(),
            "results": data,
        }
        if self.counted is not None:
            body["count"] = self.counted
        return Response(body)

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": self.cursor_query_param,
                "required": False,
                "in": "query",
                "description": "From `next` or `previous` of another page.",
                "schema": CURSOR_SCHEMA,
            },
            {
                "name": self.page_size_query_param,
                "required": False,
                "in": "query",
                "schema": PAGE_SIZE_SCHEMA,
            },
        ]

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {
                "next": link,
                "previous": link,
                "results": schema,
                "count": {"type": "integer"},
            },
        }
