"""How many rows a list has: exactly where counting is cheap, else about how many."""

import json
from functools import cached_property
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet

# In units of PostgreSQL's planner: a count that costs more takes above some 100 ms.
CHEAP_COST = 40_000


class ListPaginator(Paginator):
    """Pages of a list of any length.

    PostgreSQL's planner says what a count would cost, and about how many rows it
    expects; a dear one is not made. Pages beyond the expected end can be read.
    """

    @cached_property
    def _plan(self) -> tuple[float, int]:
        """Return the cost of a count, and the expected number of rows."""
        if not isinstance(self.object_list, QuerySet):
            return 0, len(self.object_list)
        text = self.object_list.order_by().explain(format="json")
        if not text:
            # Nothing can match, and the database is not asked.
            return 0, 0
        plan = json.loads(text)[0]["Plan"]
        return plan["Total Cost"], plan["Plan Rows"]

    @cached_property
    def is_estimate(self) -> bool:
        return self._plan[0] > CHEAP_COST

    @cached_property
    def count(self) -> int:
        if not self.is_estimate:
            return super().count
        # Of what fits on one page Django would read the rows without a limit.
        return max(self._plan[1], self.per_page + 1)

    def validate_number(self, number: Any) -> int:
        if self.is_estimate:
            return max(1, int(number))
        return super().validate_number(number)

    def page(self, number: Any) -> "Page[Any]":
        if not self.is_estimate:
            return super().page(number)
        number = self.validate_number(number)
        bottom = (number - 1) * self.per_page
        rows = self.object_list[bottom : bottom + self.per_page]
        return Page(rows, number, self)
