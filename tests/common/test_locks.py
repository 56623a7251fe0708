"""Locks are said in one place, and rows are locked no harder than is meant."""

import ast
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from hotswap.common import locks

ROOT = Path(settings.BASE_DIR)
APPS = ("hotswap", "firmware", "devices", "health", "deployments")


def sources() -> Iterator[tuple[str, ast.Module]]:
    for app in APPS:
        for file in (ROOT / app).rglob("*.py"):
            if "migrations" not in file.parts:
                yield str(file.relative_to(ROOT)), ast.parse(file.read_text())


def test_no_two_locks_have_one_number() -> None:
    numbers = [value for name, value in vars(locks).items() if name.isupper()]

    assert len(numbers) == len(set(numbers)) == 8


def test_every_lock_of_rows_says_whether_it_is_one_of_the_key() -> None:
    """Without `no_key=True` whoever refers to the row, as an order does to its device,
    waits until the transaction ends.
    """
    silent = [
        f"{file}:{node.lineno}"
        for file, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "select_for_update"
        and "no_key" not in {keyword.arg for keyword in node.keywords}
    ]

    assert silent == []
