"""What an app shows on the page of another app's model, and the buttons that it adds.

Rules:
- A page names places, and includes `console/panels.html` at each. It knows none of the
  apps that fill them.
- An app registers what it shows in its `admin.py`, which Django loads at its start; a
  place shows its panels in the order of their registration.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from django.db.models import Model
from django.http import HttpRequest

from hotswap.common.console.actions.base import Button
from hotswap.common.models import User

Context = Callable[[HttpRequest, Any], dict[str, Any] | None]
ButtonMaker = Callable[[User, Any], Button | None]


class LogLine(Protocol):
    """One line of what has happened to an object."""

    at: datetime
    level: str
    event: str
    message: str


LogSource = Callable[[Any, int], Iterable[LogLine]]


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of a page.

    Attributes:
        place: where on the page it stands.
        template: of the part; it finds its own context in `panel`, the object in
            `item`.
        context: gives that for a request and an object; None where there is nothing to
            show.
    """

    place: str
    template: str
    context: Context


@dataclass(frozen=True, slots=True)
class ShownPanel:
    """A panel of one answer."""

    template: str
    context: dict[str, Any]


_panels: dict[type[Model], list[Panel]] = {}
_buttons: dict[type[Model], list[ButtonMaker]] = {}
_logs: dict[type[Model], list[LogSource]] = {}


def register_panel(model: type[Model], panel: Panel) -> None:
    """Show a panel on each page of a model."""
    _panels.setdefault(model, []).append(panel)


def register_button(model: type[Model], maker: ButtonMaker) -> None:
    """Put a button before those of the page itself, where the maker returns one."""
    _buttons.setdefault(model, []).append(maker)


def register_log(model: type[Model], source: LogSource) -> None:
    """Show lines in the log of an object.

    Args:
        source: gives the newest lines about an object, the given number at most.
    """
    _logs.setdefault(model, []).append(source)


def shown_panels(request: HttpRequest, obj: Model) -> dict[str, list[ShownPanel]]:
    """Return the panels of the page of an object, by their places."""
    shown: dict[str, list[ShownPanel]] = {}
    for panel in _panels.get(type(obj), ()):
        context = panel.context(request, obj)
        if context is not None:
            shown.setdefault(panel.place, []).append(
                ShownPanel(panel.template, context)
            )
    return shown


def added_buttons(user: User, obj: Model) -> list[Button]:
    """Return the buttons that other apps add to the page of an object."""
    made = (maker(user, obj) for maker in _buttons.get(type(obj), ()))
    return [button for button in made if button is not None]


def newest_lines(obj: Model, limit: int) -> list[LogLine]:
    """Return what has happened to an object, by all apps, the newest first."""
    lines = [line for source in _logs.get(type(obj), ()) for line in source(obj, limit)]
    return sorted(lines, key=lambda line: line.at, reverse=True)[:limit]
