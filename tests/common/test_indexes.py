"""The migrations leave what the models promise.

A migration may take more away than it says: dropping the index of a foreign key takes
every other index of that column alone along, a unique one included.
"""

from typing import Any

import pytest
from django.apps import apps
from django.db import connection, models

OURS = ("common", "firmware", "devices", "health", "deployments")
MODELS = [
    model
    for model in apps.get_models(include_auto_created=True)
    if model._meta.app_label in OURS and model._meta.managed
]


def in_database(model: type[models.Model]) -> dict[str, Any]:
    with connection.cursor() as cursor:
        found: dict[str, Any] = connection.introspection.get_constraints(
            cursor, model._meta.db_table
        )
    return found


@pytest.mark.django_db
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
def test_every_named_constraint_and_index_is_there(model: type[models.Model]) -> None:
    promised = {each.name for each in (*model._meta.constraints, *model._meta.indexes)}

    assert promised <= in_database(model).keys()


@pytest.mark.django_db
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
def test_every_reference_and_unique_field_is_kept_by_the_database(
    model: type[models.Model],
) -> None:
    found = in_database(model).values()
    unique = [each["columns"] for each in found if each["unique"]]
    references = [each["columns"] for each in found if each["foreign_key"]]

    for field in model._meta.local_concrete_fields:
        if field.unique:
            assert [field.column] in unique, field.name
        if field.many_to_one and getattr(field, "db_constraint", False):
            assert [field.column] in references, field.name
