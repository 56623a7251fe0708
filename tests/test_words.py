"""One word for one thing: what people read uses the standard terms of the field.

The words on the left are those of nobody else, or a second word for the same. Names on
the wire (`not_proven`, `stage.settled`, `underWay`) keep theirs.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import PROJECT_DIR

WORDS = {
    r"proven": "proved",
    r"(un)?settle[sd]?|settling": "finished",
    r"under way": "in progress",
    r"tak(e|es|en|ing) part|took part": "eligible, included",
    r"(left|leaves?|leaving) (it |them )?out": "excluded, omitted",
    r"over by": "estimated finish",
    r"whom it means": "description, rule",
    r"deeds?": "action",
    r"usual (mean|for)|its usual|what is usual": "baseline",
    r"(of its|own|wider) spreads": "standard deviations",
    r"far from (what is|its|their)? ?usual": "anomaly",
    r"warning of a (stage|launch)": "stage warning, launch warning",
    r"told of|what is told": "events, payload",
    r"let in": "enrolled",
    r"limits at which": "rollback thresholds",
    r"watched after": "monitor for",
    r"to the approver": "note for the approver",
    r"against the newest": "compared with",
    r"check the stored image": "verify image",
    r"says that it is done|proof is awaited": "reported installed, verifying",
}
APPS = ("firmware", "devices", "health", "deployments", "hotswap")
FORBIDDEN = re.compile(
    "|".join(rf"(?<![\w`-])(?<!\w\.)(?:{each})(?![\w`-]|\.\w)" for each in WORDS),
    re.IGNORECASE,
)


def prose_of_template(text: str) -> Iterator[str]:
    """Yield what a template shows: no tags of Django, and of HTML the attributes."""
    text = re.sub(r"{#.*?#}|{%.*?%}|{{.*?}}", " ", text, flags=re.DOTALL)
    yield re.sub(r"\s(class|id|data-hs-[\w-]+|name|value|href)=\"[^\"]*\"", " ", text)


def prose_of_document(text: str) -> Iterator[str]:
    """Yield a document without its examples and what it quotes as code."""
    yield re.sub(r"```.*?```|`[^`\n]*`", " ", text, flags=re.DOTALL)


def prose_of_code(text: str) -> Iterator[str]:
    """Yield the strings of a module that are sentences, and no docstrings."""
    tree = ast.parse(text)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        )
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in docstrings:
            continue
        text = node.value if isinstance(node.value, str) else ""
        if " " in text.strip() and not re.search(r"%\(|\bSELECT\b|\bFROM\b|=", text):
            yield text


def readable() -> Iterator[tuple[Path, str]]:
    for path in (PROJECT_DIR / "templates").rglob("*.html"):
        for text in prose_of_template(path.read_text()):
            yield path, text
    documents = (PROJECT_DIR / "docs").rglob("*.md")
    for path in (*documents, PROJECT_DIR / "README.md"):
        for text in prose_of_document(path.read_text()):
            yield path, text
    for line in (PROJECT_DIR / "docs/openapi.yaml").read_text().splitlines():
        if re.search(r"\w \w", line):
            yield PROJECT_DIR / "docs/openapi.yaml", line
    for app in APPS:
        for path in (PROJECT_DIR / app).rglob("*.py"):
            if "migrations" in path.parts or path.name == "models.py":
                continue
            for text in prose_of_code(path.read_text()):
                yield path, text


# Values on the wire that are words.
WIRE = {"under way"}


def test_people_read_one_word_for_one_thing() -> None:
    found = [
        f"{path.relative_to(PROJECT_DIR)}: {match[0]!r} in "
        f"{text[max(0, match.start() - 40) : match.end() + 30]!r}"
        for path, text in readable()
        if text not in WIRE
        for match in FORBIDDEN.finditer(text)
    ]

    assert found == []


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("52 proven of 52", True),
        ("the code `not_proven`", False),
        ("Deployments under way", True),
        ("Left out: one device", True),
        ("the soak is over by itself", True),
        ("an approved image", False),
    ],
)
def test_the_words_are_found(text: str, is_refused: bool) -> None:
    (prose,) = prose_of_document(text)

    assert bool(FORBIDDEN.search(prose)) == is_refused
