"""The console has one shape in every app: pages, actions, and what registers them."""

import ast
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib import admin

from hotswap.common.console.pages.base import ConsoleAdmin

ROOT = Path(settings.BASE_DIR)
APPS = ("hotswap/common", "firmware", "devices", "deployments")


@pytest.mark.parametrize("app", APPS)
def test_what_registers_does_no_more(app: str) -> None:
    text = (ROOT / app / "admin.py").read_text()
    defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

    assert not [x for x in ast.walk(ast.parse(text)) if isinstance(x, defined)]
    assert len(text.splitlines()) <= 40


def test_every_page_and_every_action_stands_in_its_folder() -> None:
    pages = list(admin.site._registry.values())
    actions = [
        action
        for page in pages
        if isinstance(page, ConsoleAdmin)
        for action in page.console_actions
    ]

    assert [x for x in pages if not isinstance(x, ConsoleAdmin)] == []
    assert {x for x in pages if ".console.pages." not in type(x).__module__} == set()
    assert {x for x in actions if ".console.actions." not in x.__module__} == set()
