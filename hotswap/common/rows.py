"""Instances of models from rows of a statement of one's own.

For the few statements that a fleet sends all day: to build the SQL of a queryset costs
more there than to run it.
"""

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from django.db import connection
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
