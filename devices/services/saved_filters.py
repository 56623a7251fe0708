"""Filters of the list of devices that people keep under a name, each their own."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

from devices.exceptions import TooManySavedFiltersError
from devices.models import SavedFilter
from hotswap.common.models import User

KEPT_AT_MOST = 50
# What names a page, not a filter.
NOT_KEPT = frozenset({"p", "e"})


def save_filter(*, user: User, name: str, query: str) -> SavedFilter:
    """Keep a filter; one of the same name is replaced.

    Args:
        query: the filtered list, as its address says it after the question mark.

    Raises:
        TooManySavedFiltersError: the person has 50 others.
    """
    others = SavedFilter.objects.filter(user=user).exclude(name=name)
    if others.count() >= KEPT_AT_MOST:
        raise TooManySavedFiltersError(
            f"{KEPT_AT_MOST} filters are saved, which is as many as one may have"
        )
    pairs = [pair for pair in parse_qsl(query) if pair[0] not in NOT_KEPT]
    saved, _ = SavedFilter.objects.update_or_create(
        user=user, name=name, defaults={"query": urlencode(pairs)}
    )
    return saved


def remove_filter(*, user: User, name: str) -> None:
    """Forget a filter of a person, if there is one of this name."""
    SavedFilter.objects.filter(user=user, name=name).delete()


def erase_filters(*, person: User) -> None:
    """Delete the filters of a person who is erased."""
    SavedFilter.objects.filter(user=person).delete()


def export_filters(*, person: User) -> Iterator[tuple[str, Iterator[Any]]]:
    """Give out the filters of a person."""
    yield (
        "savedFilters",
        (
            {"name": row.name, "query": row.query, "createdAt": row.created_at}
            for row in SavedFilter.objects.filter(user=person).order_by("pk")
        ),
    )
