"""The console's own files, and the label of its environment."""

from django.conf import settings
from django.http import HttpRequest
from django.templatetags.static import static


def stylesheet(request: HttpRequest) -> str:
    return static("hotswap/console.css")


def script(request: HttpRequest) -> str:
    return static("hotswap/console.js")


def live_script(request: HttpRequest) -> str:
    return static("hotswap/live.js")


def charts_script(request: HttpRequest) -> str:
    return static("hotswap/charts.js")


def icon(request: HttpRequest) -> str:
    return static("hotswap/icon.svg")


def colors(request: HttpRequest) -> dict[str, dict[str, str]]:
    """Return none: they are in `console.css`, as no style may stand in a page."""
    return {}


def environment_label(request: HttpRequest) -> list[str] | None:
    """Say on every page of a demo that its waits are shorter than real ones."""
    if not settings.DEMO_CLOCK:
        return None
    return [f"Demo – waits shortened ({settings.DEMO_CLOCK})", "warning"]
