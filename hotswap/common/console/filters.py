"""Filters that several lists share."""

from typing import Any, ClassVar

from django.db.models import QuerySet
from unfold.contrib.filters.admin import RadioFilter


class StatusFilter(RadioFilter):
    """The filter of a list by its column `status`."""

    title = "status"
    parameter_name = "status"
    choices_of_status: ClassVar[list[tuple[str, str]]]

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return list(self.choices_of_status)

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(status=self.value()) if self.value() else queryset
