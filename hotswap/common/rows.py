"""Statements that a fleet sends all day, and instances of models from their rows.

To build the SQL of a queryset, and to plan it, costs more there than to run it. Such
statements are written out and prepared once for each connection.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

import psycopg
from django.db import NotSupportedError, connection
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

Kind = TypeVar("Kind", bound=Model)


class Columns(Generic[Kind]):
    """The columns of a model under an alias, and how to read them back.

    Args:
        without: names of fields that are not read; they are deferred.
    """

    def __init__(
        self, model: type[Kind], alias: str, *, without: tuple[str, ...] = ()
    ) -> None:
        fields = [
            field for field in model._meta.concrete_fields if field.name not in without
        ]
        self.model = model
        self.sql = ", ".join(f"{alias}.{field.column}" for field in fields)
        self._names = [field.attname for field in fields]
        self._convert = [
            (index, field.from_db_value)
            for index, field in enumerate(fields)
            if hasattr(field, "from_db_value")
        ]

    def take(self, row: Iterator[Any]) -> Kind:
        """Read an instance from the next values of a row."""
        values = [next(row) for _ in self._names]
        for index, convert in self._convert:
            values[index] = convert(values[index], None, connection)
        return self.model.from_db("default", self._names, values)


PLACES = re.compile(r"%(?:\((?P<name>\w+)\)s|(?P<next>s)|(?P<percent>%))")


@lru_cache(maxsize=1024)
def numbered(query: str) -> tuple[bytes, tuple[str, ...] | None]:
    """Return a statement with PostgreSQL's own places (`$1`), and the names of those.

    A name that occurs twice has one place. The names are None where places have none.
    psycopg does the same at every execution of a statement of more than 4096
    characters; here a statement is read once.
    """
    names: dict[str, int] = {}
    count = 0

    def place(found: re.Match[str]) -> str:
        nonlocal count
        if found["percent"]:
            return "%"
        if found["next"]:
            count += 1
            return f"${count}"
        return f"${names.setdefault(found['name'], len(names) + 1)}"

    text = PLACES.sub(place, query)
    if names and count:
        raise ValueError("places with and without names in one statement")
    return text.encode(), tuple(names) if names else None


class PreparedCursor(psycopg.RawCursor[Any]):
    """A cursor for statements with places as Django writes them: `%(name)s`, `%s`."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        text, names = numbered(query)
        if names is not None:
            values: Mapping[str, Any] = params
            params = [values[name] for name in names]
        return super().execute(text, params, **options)


@contextmanager
def prepared_cursor() -> Iterator[CursorWrapper]:
    """Open a cursor for statements that are the same but for their values.

    Values go apart from the statement, which PostgreSQL parses and plans but once, if
    the settings let it. A value is typed by its place in the statement; where that says
    nothing, the statement must (`%(x)s::text`).
    """
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    with PreparedCursor(connection.connection) as cursor:
        wrap = (
            connection.make_debug_cursor
            if connection.queries_logged
            else connection.make_cursor
        )
        try:
            yield wrap(cast(Any, cursor))
        except NotSupportedError:
            # A migration has changed what was prepared: on a new connection it is
            # prepared anew.
            if not connection.in_atomic_block:
                connection.close()
            raise
