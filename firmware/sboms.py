"""Software bills of materials: which components an image is made of.

CycloneDX and SPDX, each as JSON. Pure: the standard library alone.

Source: Security Requirements; EU Cyber Resilience Act, Annex I, part II (1).
"""

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

CYCLONE_DX, SPDX = "CycloneDX", "SPDX"
MAX_COMPONENTS = 20_000
MAX_CONTAINERS = 200_000
MAX_DEPTH = 64
MAX_TEXT = 512


@dataclass(frozen=True, slots=True)
class Component:
    """One part of an image; what is not said is empty.

    Attributes:
        purl: its package URL.
    """

    name: str
    version: str
    purl: str


@dataclass(frozen=True, slots=True)
class Sbom:
    """A document that was read.

    Attributes:
        form: `CycloneDX` or `SPDX`.
        spec_version: of that form, as the document says it.
    """

    form: str
    spec_version: str
    components: tuple[Component, ...]


def read_sbom(body: bytes) -> Sbom:
    """Read a document, and name what it is made of.

    Raises:
        ValueError: it is none, says why.
    """
    if body.count(b"{") + body.count(b"[") > MAX_CONTAINERS:
        raise ValueError(f"it has more than {MAX_CONTAINERS:,} lists and objects")
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_unambiguous)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    if document.get("bomFormat") == CYCLONE_DX:
        return _read_cyclone_dx(document)
    if "spdxVersion" in document:
        return _read_spdx(document)
    raise ValueError(
        "it is neither CycloneDX (bomFormat) nor SPDX (spdxVersion) in JSON"
    )


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _read_cyclone_dx(document: dict[str, Any]) -> Sbom:
    spec_version = _text(document, "specVersion", "")
    if not spec_version:
        raise ValueError("specVersion is missing")
    found: list[Component] = []
    # Components may hold others.
    waiting = deque((row, 1) for row in _rows(document, "components"))
    while waiting:
        row, depth = waiting.popleft()
        if depth > MAX_DEPTH:
            raise ValueError("its components are nested too deep")
        place = f"components[{len(found)}]"
        found.append(_component(row, place, "version", _text(row, "purl", place)))
        if len(found) > MAX_COMPONENTS:
            raise ValueError(f"it has more than {MAX_COMPONENTS:,} components")
        waiting.extend((inner, depth + 1) for inner in _rows(row, "components"))
    return Sbom(CYCLONE_DX, spec_version, tuple(found))


def _read_spdx(document: dict[str, Any]) -> Sbom:
    spec_version = _text(document, "spdxVersion", "").removeprefix("SPDX-")
    if not spec_version:
        raise ValueError("spdxVersion is empty")
    rows = _rows(document, "packages")
    if len(rows) > MAX_COMPONENTS:
        raise ValueError(f"it has more than {MAX_COMPONENTS:,} packages")
    found = []
    for index, row in enumerate(rows):
        place = f"packages[{index}]"
        purl = next(
            (
                _text(reference, "referenceLocator", place)
                for reference in _rows(row, "externalRefs")
                if reference.get("referenceType") == "purl"
            ),
            "",
        )
        found.append(_component(row, place, "versionInfo", purl))
    return Sbom(SPDX, spec_version, tuple(found))


def _component(
    row: dict[str, Any], place: str, version_field: str, purl: str
) -> Component:
    name = _text(row, "name", place)
    if not name:
        raise ValueError(f"{place} has no name")
    return Component(name, _text(row, version_field, place), purl)


def _rows(holder: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = holder.get(name)
    if rows is None:
        return []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{name} is no list of objects")
    return rows


def _text(holder: dict[str, Any], name: str, place: str) -> str:
    value = holder.get(name)
    where = f"{place}.{name}" if place else name
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"{where} is no text of {MAX_TEXT} characters at most")
    if "\x00" in value or any("\ud800" <= each <= "\udfff" for each in value):
        raise ValueError(f"{where} has characters that are not allowed")
    return value
