"""A lower app names no upper one: neither by a string, nor by a related name.

Imports are a matter of the contracts in `pyproject.toml`. What an upper app shows on
the page of a lower one is a panel that it registers.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib import admin

from hotswap.common.console.pages.base import ConsoleAdmin

ROOT = Path(settings.BASE_DIR)
# Each may know those before it. The agent and the simulator know no app at all.
ORDER = ("common", "firmware", "devices", "health", "deployments")
FOLDERS = {name: name for name in ORDER} | {"common": "hotswap/common"}
APART = {"migrations", "agent", "simulator"}
LOWER = ORDER[:-1]
# The row that health keeps beside each device is what devices derive their status
# from: `devices.querysets` says so.
KNOWN_BESIDE_A_DEVICE = {"state"}
# Fields of dataclasses that are called as an upper app calls its rows.
OF_A_DATACLASS = {("health/services/history.py", "updates")}


def above(app: str) -> tuple[str, ...]:
    return ORDER[ORDER.index(app) + 1 :]


def sources(app: str) -> Iterator[tuple[str, ast.Module]]:
    for file in sorted((ROOT / FOLDERS[app]).rglob("*.py")):
        if not APART & set(file.parts):
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text())


def strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Give the strings of a module with their lines, without docstrings."""
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in docstrings:
                continue
            yield node.lineno, node.value


def naming(app: str) -> re.Pattern[str]:
    """Find pages, tables and dotted paths, as of permissions, of the apps above."""
    upper = "|".join(above(app))
    tables = "|".join(
        model._meta.db_table
        for model in apps.get_models()
        if model._meta.app_label in above(app)
    )
    return re.compile(rf"\b(admin:({upper})_|({tables})\b|({upper})\.(?!md)[a-z_]+)")


def relations(app: str) -> list[Any]:
    """Return how rows of upper apps are reached from those of an app and below."""
    known = {*ORDER} - {*above(app)}
    return [
        relation
        for model in apps.get_models()
        if model._meta.app_label in known
        for relation in model._meta.related_objects
        if relation.related_model._meta.app_label in above(app)
    ]


@pytest.mark.parametrize("app", LOWER)
def test_an_app_names_no_app_above_it_in_a_string(app: str) -> None:
    pattern = naming(app)

    found = [
        f"{file}:{line}: {text!r}"
        for file, tree in sources(app)
        for line, text in strings(tree)
        if pattern.search(text)
    ]

    assert found == []


@pytest.mark.parametrize("app", LOWER)
def test_an_app_reaches_no_row_of_an_app_above_it(app: str) -> None:
    attributes = {each.get_accessor_name() for each in relations(app)}
    lookups = {each.field.related_query_name() for each in relations(app)}
    attributes -= KNOWN_BESIDE_A_DEVICE
    lookups -= KNOWN_BESIDE_A_DEVICE
    found: list[tuple[str, int, str]] = []

    for file, tree in sources(app):
        asked = [*strings(tree)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in attributes:
                found.append((file, node.lineno, node.attr))
            if isinstance(node, ast.keyword) and node.arg is not None:
                asked.append((node.value.lineno, node.arg))
        for line, text in asked:
            first, is_lookup, _ = text.partition("__")
            if is_lookup and first in lookups:
                found.append((file, line, text))

    assert [each for each in found if (each[0], each[2]) not in OF_A_DATACLASS] == []


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in admin.site._registry.values()
        if isinstance(page, ConsoleAdmin)
        and page.page_template
        and page.opts.app_label in LOWER
    ],
    ids=lambda page: page.opts.label_lower,
)
def test_the_page_of_a_lower_app_leaves_upper_ones_to_their_panels(
    page: ConsoleAdmin,
) -> None:
    text = (ROOT / "templates" / page.page_template).read_text()

    assert naming(page.opts.app_label).findall(text) == []
