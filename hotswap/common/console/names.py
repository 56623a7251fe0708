"""The people behind pseudonyms, for those who may know them."""

from collections.abc import Iterable
from uuid import UUID

from hotswap.common.models import User


def names_of(pseudonyms: Iterable[UUID | None]) -> dict[UUID | None, str]:
    """Return the names of people by their pseudonyms; those of erased ones are gone."""
    wanted = {each for each in pseudonyms if each is not None}
    if not wanted:
        return {}
    found = User.objects.filter(pseudonym__in=wanted)
    return dict(found.values_list("pseudonym", "username"))
