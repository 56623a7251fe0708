"""The manual in the console: the pages of `docs/`, shown as they are in this version.

Rules:
- What is shown is Markdown without any HTML of its own; nothing is written.
- Only pages and pictures of the folder are given out, by names known at the start.
- A link to what is not among them is shown as text.
"""

import re
from functools import cache, lru_cache
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path, PurePosixPath

from django.conf import settings
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.token import Token

PICTURES = {".png": "image/png", ".svg": "image/svg+xml"}
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")
KEPT_SECONDS = 3600


@cache
def known_files() -> dict[str, Path]:
    """Return pages and pictures by their paths inside of the folder."""
    folder = Path(settings.BASE_DIR) / "docs"
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".md", *PICTURES}
    }


def manual_view(request: HttpRequest, name: str = "") -> HttpResponse:
    """Show a page of the manual, or the list of its pages."""
    if not name:
        return _page(request, "Manual", "console/manual_index.html", pages=_pages())
    path = known_files().get(name)
    if path is None:
        raise Http404
    if path.suffix in PICTURES:
        return HttpResponse(
            path.read_bytes(),
            status=HTTPStatus.OK,
            content_type=PICTURES[path.suffix],
            headers={"Cache-Control": f"private, max-age={KEPT_SECONDS}"},
        )
    return _page(
        request,
        _title(name),
        "console/manual.html",
        text=_rendered(name),
        back_url=reverse("manual"),
        back_name="Manual",
    )


def _page(
    request: HttpRequest, title: str, template: str, **context: object
) -> HttpResponse:
    frame = admin.site.each_context(request)
    return TemplateResponse(
        request, template, {**frame, "title": title, "heading": title, **context}
    )


def _title(name: str) -> str:
    found = TITLE.search(known_files()[name].read_text(encoding="utf-8"))
    return found[1] if found else name


@cache
def _pages() -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the pages by their folders: names and titles."""
    folders: dict[str, list[tuple[str, str]]] = {}
    for name, path in known_files().items():
        if path.suffix == ".md":
            folder = PurePosixPath(name).parent.name.capitalize()
            folders.setdefault(folder, []).append((name, _title(name)))
    return sorted(folders.items())


@lru_cache(maxsize=64)
def _rendered(name: str) -> SafeString:
    """Return a page as HTML; its headings are anchors, as on GitHub."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(known_files()[name].read_text(encoding="utf-8"))
    # The title stands in the head of the page.
    if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        del tokens[:3]
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor_of(following.content))
    for token in tokens:
        for child in token.children or ():
            _keep_inside(child, PurePosixPath(name).parent)
    return mark_safe(parser.renderer.render(tokens, parser.options, {}))  # noqa: S308


def anchor_of(heading: str) -> str:
    """Return the anchor of a heading: `## A new key` is at `#a-new-key`."""
    return NOT_IN_ANCHORS.sub("", heading.lower()).replace(" ", "-")


def _keep_inside(token: Token, folder: PurePosixPath) -> None:
    """Let links lead to pages that are here, or nowhere."""
    if token.type != "link_open":
        return
    target = str(token.attrGet("href") or "")
    path, _, _ = target.partition("#")
    if not path:
        return
    parts: list[str] = []
    for part in (folder / path).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    if "/".join(parts) not in known_files():
        token.attrs.pop("href", None)
