"""Locks are said in one place, and rows are locked no harder than is meant."""

import ast
import re
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

    assert len(numbers) == len(set(numbers)) == 11


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


# Where rows are locked by statements of their own.
RAW_LOCK = re.compile(r"\bFOR (NO KEY )?UPDATE\b")
PAGE = ROOT / "docs" / "architecture" / "locking.md"


def row_locks() -> Iterator[tuple[str, int, str]]:
    """Find each lock of rows: its file, its line, and what it says."""
    for file, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == "select_for_update":
                yield file, node.lineno, node.attr
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said = RAW_LOCK.search(node.value)
                if said is not None:
                    yield file, node.lineno, said[0]


def test_a_statement_locks_rows_no_harder_than_is_meant() -> None:
    hard = [lock for lock in row_locks() if lock[2] == "FOR UPDATE"]

    assert hard == []


def test_the_page_names_every_module_that_locks_rows() -> None:
    table = PAGE.read_text().split("## Where rows are locked")[1].split("\n## ")[0]
    named = re.findall(r"`([a-z_/]+(?:\.py|/))", table)

    unnamed = {
        file
        for file, _, _ in row_locks()
        if not any(file == name or file.startswith(name) for name in named)
    }
    files = {file for file, _, _ in row_locks()}
    idle = {
        name
        for name in named
        if not any(file == name or file.startswith(name) for file in files)
    }

    assert unnamed == set()
    assert idle == set()
