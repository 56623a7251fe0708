"""What the templates of the console share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import template
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.utils import (
    display_for_field,
    display_for_value,
    lookup_field,
)
from django.contrib.admin.views.main import PAGE_VAR, SEARCH_VAR, ChangeList
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import ForeignKey, Model
from django.urls import NoReverseMatch
from django.utils.html import strip_tags
from django.utils.safestring import SafeString
from unfold.templatetags.unfold_list import result_headers

from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.paginator import ListPaginator
from hotswap.common.console.text import age as age_of
from hotswap.common.console.text import details_in_words as words_of_details
from hotswap.common.console.text import event_in_words as words_of_event
from hotswap.common.console.text_filter import TextFilter

register = template.Library()

# What is shorter stands on one line of a list.
LONG_TEXT = 24


@register.filter
def details_in_words(details: Mapping[str, Any]) -> str:
    return words_of_details(details)


@register.filter
def event_in_words(name: str) -> str:
    return words_of_event(name)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a list.

    Attributes:
        url: leads to the page of its row, "" for none.
        title: of its column, where a phone shows it; "" where it does not.
        css: its place on a phone.
    """

    shown: Any
    url: str = ""
    title: str = ""
    css: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    name: str
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class ShownFilter:
    """A filter above a list.

    Attributes:
        kind: `select`, or the type of the input.
        unset: what a `select` says where nothing is chosen.
        choices: value and word of each, for a `select`.
        word: what is chosen, in words; "" for nothing.
        removed_url: the list without it.
    """

    title: str
    name: str
    kind: str
    value: str
    hint: str
    unset: str
    choices: list[tuple[str, str]]
    word: str
    removed_url: str


@register.filter
def age(at: datetime | None) -> SafeString:
    """Say how long ago it was; the exact time is in the tooltip."""
    return age_of(at)


@register.inclusion_tag("console/result_list.html")
def console_results(cl: ChangeList) -> dict[str, Any]:
    """Show the rows of a list; on narrow screens each as a few lines of text."""
    headers = list(result_headers(cl))
    labels = [str(header["text"]) for header in headers]
    selection = getattr(cl.model_admin, "selection_field", "")
    return {
        "cl": cl,
        "headers": headers,
        "rows": [_row(cl, each, labels, selection) for each in cl.result_list],
        "selection": selection,
        "selection_buttons": getattr(cl, "selection_buttons", ()),
    }


def _row(cl: ChangeList, obj: Model, labels: list[str], selection: str) -> Row:
    key = str(getattr(obj, selection)) if selection else ""
    return Row(key, str(obj), list(_cells(cl, obj, labels)))


def _cells(cl: ChangeList, obj: Model, labels: list[str]) -> Iterator[Cell]:
    links = cl.list_display_links
    empty = cl.model_admin.get_empty_value_display()
    narrow: NarrowRow = getattr(cl.model_admin, "narrow_row", NarrowRow())
    for number, name in enumerate(cl.list_display):
        is_link = links is not None and (name in links or (not links and number == 0))
        column = name if isinstance(name, str) else name.__name__
        shown = _shown(cl, obj, name)
        yield Cell(
            shown=shown,
            url=_url(cl, obj) if is_link else "",
            title=labels[number] if column in narrow.titled else "",
            css=_css(narrow.css_of(column), shown, is_empty=shown in ("", empty)),
        )


def _css(place: str, shown: Any, *, is_empty: bool) -> str:
    """Return the classes of a cell: its place on a phone, and whether it may wrap."""
    if is_empty:
        return "hs-row-wide"
    is_long = len(strip_tags(str(shown))) > LONG_TEXT
    return f"{place} hs-long".strip() if is_long else place


def _shown(cl: ChangeList, obj: Model, name: Any) -> Any:
    empty = cl.model_admin.get_empty_value_display()
    try:
        field, attribute, value = lookup_field(name, obj, cl.model_admin)
    except ObjectDoesNotExist:
        return empty
    if field is None:
        return display_for_value(value, empty, getattr(attribute, "boolean", False))
    if isinstance(field, ForeignKey):
        return empty if value is None else value
    return display_for_field(value, field, empty)


def _url(cl: ChangeList, obj: Model) -> str:
    try:
        return str(cl.url_for_result(obj))
    except NoReverseMatch:
        return ""


@register.simple_tag
def list_filters(cl: ChangeList) -> list[ShownFilter]:
    """Return the filters of a list, with what is chosen."""
    shown = []
    for each in cl.filter_specs:
        assert isinstance(each, SimpleListFilter)
        name, value = str(each.parameter_name), each.value() or ""
        choices = [(str(key), str(word)) for key, word in each.lookup_choices]
        written = each if isinstance(each, TextFilter) else None
        word = value if written else dict(choices).get(value, value)
        shown.append(
            ShownFilter(
                title=str(each.title),
                name=name,
                kind=written.input_type if written else "select",
                value=value,
                hint=written.hint if written else "",
                # Some leave rows out unless they are asked for.
                unset=getattr(each, "unset", "any"),
                choices=[] if written else choices,
                word=word,
                removed_url=cl.get_query_string(remove=[name, PAGE_VAR]),
            )
        )
    return shown


@register.simple_tag
def kept_parameters(cl: ChangeList) -> list[tuple[str, str]]:
    """Return what a search keeps beside the filters: the order of the list."""
    named = {getattr(each, "parameter_name", "") for each in cl.filter_specs}
    return [
        (name, value)
        for name, values in cl.filter_params.items()
        if name not in named | {SEARCH_VAR, PAGE_VAR}
        for value in values
    ]


@register.inclusion_tag("console/pagination.html")
def console_pagination(cl: ChangeList) -> dict[str, Any]:
    """Show how many rows there are, and the way to the others."""
    paginator: ListPaginator = cl.paginator
    title: str = getattr(cl.model_admin, "title", "")
    rows: str = getattr(cl.model_admin, "rows_name", "")
    number, shown = cl.page_num, len(cl.result_list)
    first = (number - 1) * paginator.per_page + 1
    has_next = (
        shown == paginator.per_page
        if paginator.is_estimate
        else number < paginator.num_pages
    )
    count, is_estimate = paginator.count, paginator.is_estimate
    if is_estimate and shown < paginator.per_page and (shown or number == 1):
        # This is the last page, so that the number is known.
        count, is_estimate = first - 1 + shown, False
    return {
        "shown": shown,
        "first": first,
        "last": first + shown - 1,
        "count": count,
        "is_estimate": is_estimate,
        "names": rows or title.lower(),
        "number": number,
        "pages": max(number, -(-count // paginator.per_page)),
        "previous_url": cl.get_query_string({PAGE_VAR: number - 1})
        if number > 1
        else "",
        "next_url": cl.get_query_string({PAGE_VAR: number + 1}) if has_next else "",
    }
