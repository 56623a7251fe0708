"""What a deed has changed of a row: the values before and after, for the audit trail.

Rules:
- A tracked row remembers how it was loaded. Whoever writes to the trail passes the row
  (`audit.record(changed=...)`), and the trail has what differs; a change is told once,
  by the first row of the trail after it.
- A model says of which fields the trail has the values. Of those that may hold secrets
  or say who somebody is, it has that they changed: the trail is never erased.
- A change is `{"from": ..., "to": ...}` by the name of the field as on the wire. Maps
  are told part by part, as in `healthCriteria.watchDuration`; of a long text its
  SHA-256 is told. A field that is withheld has `{"withheld": [...]}`: the keys of a
  map that differ, else nothing.

Source: Security Requirements, audit trail; 21 CFR 11.10(e).
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, ClassVar, Self

from django.db import models

from hotswap.common.durations import format_duration
from hotswap.common.trail.chain import wire_time
from hotswap.common.wire import camelize

MAX_CHARACTERS = 500


class Tracked(models.Model):
    """A row that knows how it was loaded.

    Attributes:
        audited_fields: those whose values the audit trail has.
        withheld_fields: those of which it has only that they changed.
    """

    audited_fields: ClassVar[frozenset[str]]
    withheld_fields: ClassVar[frozenset[str]] = frozenset()
    # Names and values; nothing of a row that is new.
    _loaded: tuple[Collection[str], Collection[Any]] = ((), ())

    class Meta:
        abstract = True

    @classmethod
    def from_db(
        cls,
        db: str | None,
        field_names: Collection[str],
        values: Collection[Any],
        **options: Any,
    ) -> Self:
        row = super().from_db(db, field_names, values, **options)
        # As they came: most rows are read and never changed.
        row._loaded = (field_names, values)
        return row

    def refresh_from_db(
        self,
        using: str | None = None,
        fields: Iterable[str] | None = None,
        from_queryset: models.QuerySet[Any] | None = None,
    ) -> None:
        super().refresh_from_db(using, fields, from_queryset)
        self.keep_as_loaded(fields)

    def loaded_values(self) -> dict[str, Any]:
        """Return the values by their attributes; none of a row that is new."""
        return dict(zip(*self._loaded, strict=True))

    def keep_as_loaded(self, fields: Iterable[str] | None = None) -> None:
        """Take the present values for those that a change begins with.

        Args:
            fields: of these alone, by name or attribute; None takes all.
        """
        kept = {} if fields is None else self.loaded_values()
        wanted = None if fields is None else set(fields)
        for field in self._meta.concrete_fields:
            is_wanted = wanted is None or not wanted.isdisjoint(
                {field.name, field.attname}
            )
            if is_wanted and field.attname in self.__dict__:
                kept[field.attname] = self.__dict__[field.attname]
        self._loaded = (list(kept), list(kept.values()))


def take_changes(rows: Sequence[Tracked]) -> list[dict[str, Any]]:
    """Return what was changed of each of some rows of one model, to be told once."""
    found = [_changed_values(row) for row in rows]
    shown = [
        {
            name: change
            for field, (old, new) in changed.items()
            for name, change in _shown_change(row, field, old, new).items()
        }
        for row, changed in zip(rows, _named(rows, found), strict=True)
    ]
    for row in rows:
        row.keep_as_loaded()
    return shown


Changed = dict[str, tuple[Any, Any]]


def _changed_values(row: Tracked) -> Changed:
    """Return the values before and after of the fields that differ, by their names."""
    loaded = row.loaded_values()
    fields = row.audited_fields | row.withheld_fields
    return {
        field.name: (loaded[field.attname], getattr(row, field.attname))
        for field in row._meta.concrete_fields
        if field.name in fields
        and field.attname in loaded
        and loaded[field.attname] != getattr(row, field.attname)
    }


def _named(rows: Sequence[Tracked], found: list[Changed]) -> list[Changed]:
    """Put names in the place of the ids of other rows: of people their pseudonyms."""
    if not rows:
        return found
    for field in rows[0]._meta.concrete_fields:
        pairs = [changed[field.name] for changed in found if field.name in changed]
        if not field.is_relation or not pairs:
            continue
        ids = {each for pair in pairs for each in pair if each is not None}
        assert field.related_model is not None
        others = field.related_model._default_manager.in_bulk(ids)
        names = {pk: str(getattr(row, "pseudonym", row)) for pk, row in others.items()}
        for changed in found:
            if field.name in changed:
                old, new = changed[field.name]
                changed[field.name] = names.get(old), names.get(new)
    return found


def _shown_change(row: Tracked, name: str, old: Any, new: Any) -> dict[str, Any]:
    if name not in row.withheld_fields:
        return difference(name, old, new)
    keys: list[str] = []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return {camelize(name): {"withheld": keys}}


def difference(name: str, old: Any, new: Any) -> dict[str, Any]:
    """Return the change of a field, or the changes of the parts of a map."""
    wire = camelize(name)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {
            f"{wire}.{camelize(part)}": {
                "from": plain(old.get(part)),
                "to": plain(new.get(part)),
            }
            for part in sorted({*old, *new})
            if old.get(part) != new.get(part)
        }
    return {wire: {"from": plain(old), "to": plain(new)}}


def plain(value: Any) -> Any:
    """Return a value as the trail has it: plain JSON."""
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, datetime):
        return wire_time(value)
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, str) and len(value) > MAX_CHARACTERS:
        return {"sha256": hashlib.sha256(value.encode()).hexdigest()}
    if value is None or isinstance(value, bool | int | float | str | dict | list):
        return value
    return str(value)
