"""What an app adds to the pages and the list of another app's model.

Rules:
- A page names places, and includes `console/panels.html` at each. It knows none of the
  apps that fill them.
- An app registers what it shows in its `admin.py`, which Django loads at its start; a
  place shows its panels in the order of their registration. The same holds for the
  filters and the columns of a list, and for what is done to the rows that are selected.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from django.contrib.admin import SimpleListFilter
from django.db.models import Model
from django.http import HttpRequest
from django.utils.safestring import SafeString

from hotswap.common.console.actions.base import Button
from hotswap.common.models import User

Context = Callable[[HttpRequest, Any], dict[str, Any] | None]
ButtonMaker = Callable[[User, Any], Button | None]


class LogLine(Protocol):
    """One line of what has happened to an object."""

    @property
    def at(self) -> datetime: ...
    @property
    def level(self) -> str: ...
    @property
    def event(self) -> str: ...
    @property
    def message(self) -> str: ...


LogSource = Callable[[Any, int, datetime | None], Iterable[LogLine]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list.

    Attributes:
        values: gives what is shown, by the keys of the rows of one page.
    """

    name: str
    title: str
    values: Callable[[Sequence[Any]], Mapping[Any, SafeString]]


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
_filters: dict[type[Model], list[type[SimpleListFilter]]] = {}
_columns: dict[type[Model], list[Column]] = {}
_selection_buttons: dict[type[Model], list[Callable[[User], Button]]] = {}


def register_panel(model: type[Model], panel: Panel) -> None:
    """Show a panel on each page of a model."""
    _panels.setdefault(model, []).append(panel)


def register_button(model: type[Model], maker: ButtonMaker) -> None:
    """Put a button before those of the page itself, where the maker returns one."""
    _buttons.setdefault(model, []).append(maker)


def register_log(model: type[Model], source: LogSource) -> None:
    """Show lines in the log of an object.

    Args:
        source: gives the newest lines about an object, the given number at most, of
            those up to a moment if one is given.
    """
    _logs.setdefault(model, []).append(source)


def register_filter(model: type[Model], list_filter: type[SimpleListFilter]) -> None:
    """Filter the list of a model by what another app knows."""
    _filters.setdefault(model, []).append(list_filter)


def register_column(model: type[Model], column: Column) -> None:
    """Show a column in the list of a model."""
    _columns.setdefault(model, []).append(column)


def register_selection_button(
    model: type[Model], maker: Callable[[User], Button]
) -> None:
    """Do something with the rows of a list that are selected.

    Args:
        maker: returns the button; its address gets the rows as `deviceIds`.
    """
    _selection_buttons.setdefault(model, []).append(maker)


def added_filters(model: type[Model]) -> list[type[SimpleListFilter]]:
    return _filters.get(model, [])


def added_columns(model: type[Model]) -> list[Column]:
    return _columns.get(model, [])


def added_selection_buttons(model: type[Model], user: User) -> list[Button]:
    return [maker(user) for maker in _selection_buttons.get(model, ())]


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


def newest_lines(
    obj: Model, limit: int, until: datetime | None = None
) -> tuple[list[LogLine], datetime | None]:
    """Return what has happened to an object, by all apps, the newest first.

    Args:
        limit: so many; lines of the moment of the last of them come along.
        until: only what happened by then.

    Returns:
        The lines, and until when there are more; None at the end.
    """
    wanted = limit + 1
    while True:
        lines, known_after = _known_lines(obj, wanted, until)
        if lines or known_after is None:
            break
        # All of them were of one moment.
        wanted *= 4
    if len(lines) <= limit:
        return lines, known_after
    last = lines[limit - 1].at
    shown = [line for line in lines if line.at >= last]
    has_more = known_after is not None or len(shown) < len(lines)
    return shown, last - timedelta.resolution if has_more else None


def _known_lines(
    obj: Model, wanted: int, until: datetime | None
) -> tuple[list[LogLine], datetime | None]:
    """Return the lines after the moment up to which all sources are known, and it."""
    lines: list[LogLine] = []
    known_after: datetime | None = None
    for source in _logs.get(type(obj), ()):
        found = list(source(obj, wanted, until))
        lines += found
        if len(found) >= wanted:
            # It may have more of the moment at which it broke off.
            end = found[-1].at
            known_after = end if known_after is None else max(known_after, end)
    lines.sort(key=lambda line: line.at, reverse=True)
    if known_after is not None:
        lines = [line for line in lines if line.at > known_after]
    return lines, known_after
