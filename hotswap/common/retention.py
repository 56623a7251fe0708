"""What every removal of old rows does in the same way.

The table of what is kept for how long is `hotswap.retention`.
"""

from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Model, QuerySet

from hotswap.common.models import RemovalCount


def delete_some(found: "QuerySet[Any]", limit: int) -> int:
    """Delete at most so many of the rows that a queryset finds, and what hangs on them.

    The condition is asked again by the deletion, for rows that change meanwhile.

    Returns:
        How many rows of the queryset's own model were deleted.
    """
    model: type[Model] = found.model
    keys = list(found.order_by().values_list("pk", flat=True)[:limit])
    if not keys:
        return 0
    _, by_model = found.order_by().filter(pk__in=keys).delete()
    return by_model.get(model._meta.label, 0)


def count_removal(*, policy: str, number: int, now: datetime) -> None:
    """Add to what a policy has removed today, in the transaction of the removal."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO {RemovalCount._meta.db_table} AS counted
                (policy, day, number, last_at)
            VALUES (%(policy)s, (%(now)s AT TIME ZONE 'UTC')::date, %(number)s, %(now)s)
            ON CONFLICT (policy, day) DO UPDATE SET
                number = counted.number + EXCLUDED.number,
                last_at = GREATEST(counted.last_at, EXCLUDED.last_at)
            """,  # noqa: S608
            {"policy": policy, "number": number, "now": now},
        )
