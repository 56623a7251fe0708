"""Write many rows of a model by COPY: many times as fast as `bulk_create`."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection
from django.db.models import AutoField, JSONField, Model


def copy_rows(
    model: type[Model], names: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Write new rows; what is not given gets the default of its field.

    Keys that the database makes are not read back. A row that violates a constraint
    raises IntegrityError, and nothing of them is written.

    Args:
        names: of the columns as attributes of the model, `device_id` for a key.
        rows: the values of each row, in the order of the names.
    """
    meta = model._meta
    fields = {
        field.attname: field
        for field in meta.concrete_fields
        if not field.generated and not isinstance(field, AutoField)
    }
    defaults = [fields[name] for name in fields if name not in names]
    written = [*(fields[name] for name in names), *defaults]
    encoders = [
        (place, field.encoder)
        for place, field in enumerate(written)
        if isinstance(field, JSONField)
    ]
    quoted = connection.ops.quote_name
    columns = ", ".join(quoted(str(field.column)) for field in written)
    statement = f"COPY {quoted(meta.db_table)} ({columns})"
    with (
        connection.cursor() as cursor,
        # Django translates the errors of `execute` by itself, but not those of `copy`.
        connection.wrap_database_errors,
        cursor.copy(f"{statement} FROM STDIN") as copy,
    ):
        for row in rows:
            values = [*row, *(field.get_default() for field in defaults)]
            for place, encoder in encoders:
                if values[place] is not None:
                    values[place] = json.dumps(values[place], cls=encoder)
            copy.write_row(values)
