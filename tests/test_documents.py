"""What the documents name exists: paths, headings, make targets, functions.

A path is a link, or text in backticks that begins with a folder or is a file of the
repository; `<app>` and the like stand for any name. `path.py::name` names a function,
class or constant of a module, `path.py::Class.name` one of a class. Nothing is
imported.
"""

import ast
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT_DIR = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        *(PROJECT_DIR / name for name in ("README.md", "CONTRIBUTING.md")),
        *(PROJECT_DIR / name for name in ("SECURITY.md", "CHANGELOG.md")),
        *(PROJECT_DIR / "docs").rglob("*.md"),
    ]
)
MAPS = ("docs/architecture/README.md", "docs/decisions/README.md")
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
PATH = re.compile(r"[\w.<>-]+(?:/[\w.<>-]+)*/?(?:#[\w-]+|::[\w.]+)?")
PAGE = re.compile(r"\bdocs/[\w/-]+\.md(?:#[\w-]+)?")
SOURCES = ("hotswap", "firmware", "devices", "health", "deployments")
TARGET = re.compile(r"make (?:[A-Z]+=\S+ )*([a-z][\w-]*)")


@cache
def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def split(page: Path) -> tuple[str, tuple[str, ...]]:
    """Return the text of a page without its blocks of code, and their lines."""
    text, code = [], []
    is_fenced = False
    for line in read(page).splitlines():
        if line.startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            code.append(line.strip())
        else:
            text.append(line)
    return "\n".join(text), tuple(code)


@cache
def tracked() -> frozenset[str]:
    """Return the files and folders of the repository."""
    found: set[str] = set()
    for folder, folders, files in os.walk(PROJECT_DIR):
        folders[:] = [
            each
            for each in folders
            if not each.startswith(".") and each not in {"build", "__pycache__"}
        ]
        here = Path(folder).relative_to(PROJECT_DIR)
        found.update(str(here / each) for each in (*folders, *files))
    return frozenset(found)


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = HEADING.findall(split(page)[0])
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return frozenset(title.replace(" ", "-") for title in plain)


@cache
def names_in(module: Path) -> frozenset[str]:
    """Return what a module defines, members of its classes with the class before."""
    return frozenset(_defined(ast.parse(read(module)).body))


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for each in body:
        match each:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield name
                yield from (f"{name}.{member}" for member in _defined(each.body))
            case ast.Assign(targets=targets):
                for target in targets:
                    names = (x for x in ast.walk(target) if isinstance(x, ast.Name))
                    yield from (name.id for name in names)
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def paths_in(page: Path) -> Iterator[str]:
    """Return what stands in backticks and looks like a path of the repository."""
    tops = {name.split("/")[0] for name in tracked()}
    for text in CODE.findall(split(page)[0]):
        if PATH.fullmatch(text) is None:
            continue
        first = re.split(r"[/:#]", text)[0]
        is_inside = "/" in text and (first in tops or first == "<app>")
        if is_inside or (first in tops and Path(first).suffix):
            yield text


def fault_of(named: str) -> str:
    """Say what is wrong with a path, or nothing."""
    path, _, name = named.partition("::")
    path, _, anchor = path.partition("#")
    path = path.rstrip("/")
    if "<" in path:
        found = PROJECT_DIR.glob(re.sub(r"<[^>]*>", "*", path))
        return "" if any(found) else "matches nothing"
    if path not in tracked():
        return "does not exist"
    if name and name not in names_in(PROJECT_DIR / path):
        return f"has no {name}"
    if anchor and anchor not in anchors(PROJECT_DIR / path):
        return f"has no heading {anchor}"
    return ""


def links_in(page: Path) -> Iterator[tuple[str, str]]:
    """Return each link to a file of the repository, and what it leads to."""
    for link in LINK.findall(split(page)[0]):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        named = str(target.relative_to(PROJECT_DIR))
        yield link, f"{named}#{anchor}" if anchor else named


def targets_in(page: Path) -> set[str]:
    """Return the targets of the Makefile that a page calls."""
    text, code = split(page)
    found = map(TARGET.match, [*CODE.findall(text), *code])
    return {match.group(1) for match in found if match is not None}


def test_each_path_in_backticks_exists() -> None:
    faults = {
        (str(page), named): fault_of(named)
        for page in PAGES
        for named in paths_in(page)
    }

    assert {named: fault for named, fault in faults.items() if fault} == {}


def test_each_link_leads_somewhere() -> None:
    faults = {
        (str(page), link): fault_of(named)
        for page in PAGES
        for link, named in links_in(page)
    }

    assert {link: fault for link, fault in faults.items() if fault} == {}


def test_each_page_that_a_source_names_exists() -> None:
    faults = {
        (str(path), named): fault_of(named)
        for folder in SOURCES
        for path in (PROJECT_DIR / folder).rglob("*.py")
        for named in PAGE.findall(path.read_text(encoding="utf-8"))
    }

    assert {named: fault for named, fault in faults.items() if fault} == {}


def test_each_make_target_is_one() -> None:
    makefile = read(PROJECT_DIR / "Makefile")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))

    named = {(str(page), name) for page in PAGES for name in targets_in(page)}

    assert {(page, name) for page, name in named if name not in targets} == set()
    assert {name for _, name in named} >= {"demo", "test", "check"}


@pytest.mark.parametrize("name", MAPS)
def test_a_map_leads_to_all_pages_of_its_folder(name: str) -> None:
    page = PROJECT_DIR / name

    others = {path.name for path in page.parent.glob("*.md")} - {page.name}

    assert others <= set(LINK.findall(read(page)))


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ("deployments/nowhere.py", "does not exist"),
        ("tests/test_documents.py::no_such_name", "has no no_such_name"),
        ("README.md#no-such-heading", "has no heading no-such-heading"),
        ("<app>/nowhere/<model>.py", "matches nothing"),
        ("tests/test_documents.py::fault_of", ""),
        ("<app>/models.py", ""),
    ],
)
def test_a_wrong_name_is_found(named: str, fault: str) -> None:
    assert fault_of(named) == fault
