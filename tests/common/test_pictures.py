"""The pictures of the documentation are shown, well formed, and say what they are."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from django.conf import settings

DOCS = Path(settings.BASE_DIR) / "docs"
PICTURES = sorted(path.name for path in (DOCS / "images").iterdir())
DRAWINGS = [name for name in PICTURES if name.endswith(".svg")]
SVG = "{http://www.w3.org/2000/svg}"


def shown_pictures() -> set[Path]:
    """Return the pictures that the pages embed, with a text in their place."""
    pages = [DOCS.parent / "README.md", *DOCS.glob("*.md")]
    return {
        (page.parent / address).resolve()
        for page in pages
        for address in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text())
    }


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_well_formed_and_has_title_and_description(name: str) -> None:
    root = ET.parse(DOCS / "images" / name).getroot()

    assert root.tag == f"{SVG}svg"
    assert root.findtext(f"{SVG}title")
    assert root.findtext(f"{SVG}desc")


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_drawing_is_shown(name: str) -> None:
    assert (DOCS / "images" / name).resolve() in shown_pictures()


@pytest.mark.parametrize(
    "strategy", ["direct", "canary", "regional", "rolling", "blue-green"]
)
def test_every_strategy_has_a_picture_of_its_timeline(strategy: str) -> None:
    page = (DOCS / "deployments.md").read_text()

    assert f"(images/strategy-{strategy}.svg)" in page


def test_every_picture_that_is_shown_exists() -> None:
    assert [path for path in shown_pictures() if not path.is_file()] == []
