"""Fields that several forms of the console share."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from django import forms
from django.conf import settings
from rest_framework.exceptions import ParseError

from hotswap.common.api.parsers import parse_json

TAGS_HELP = "One a line, as in site: plant-7"


class TagsField(forms.CharField):
    """Tags of a device as lines `name: value`, each name once."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("required", False)
        kwargs.setdefault("help_text", TAGS_HELP)
        super().__init__(
            widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}), **kwargs
        )

    def prepare_value(self, value: Any) -> Any:
        return tags_as_lines(value) if isinstance(value, dict) else value or ""

    def clean(self, value: Any) -> Any:
        tags: dict[str, str] = {}
        for number, name, text in tag_lines(super().clean(value)):
            if name in tags:
                raise forms.ValidationError(f"Line {number}: {name} is there twice.")
            tags[name] = text
        return tags


def tags_as_lines(tags: Mapping[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in tags.items())


def tag_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Read lines `name: value`; each comes with its number. Empty lines say nothing.

    Raises:
        ValidationError: names the line that has no colon, or is JSON.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon or line.lstrip().startswith("{"):
            raise forms.ValidationError(
                f"Line {number}: write name: value, not {line.strip()!r}."
            )
        yield number, name.strip(), value.strip()


class JsonField(forms.CharField):
    """A JSON object, read as strictly as the API reads it."""

    widget = forms.Textarea(
        attrs={"class": "hs-input hs-json", "rows": 4, "spellcheck": "false"}
    )

    def prepare_value(self, value: Any) -> Any:
        if not value or isinstance(value, str):
            return value or ""
        return json.dumps(value, indent=2)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        try:
            found = parse_json((text or "{}").encode())
        except ParseError as error:
            raise forms.ValidationError(str(error.detail)) from None
        if not isinstance(found, dict):
            raise forms.ValidationError('Write an object: {"rack": 7}')
        return found


def region_choices() -> list[tuple[str, str]]:
    return [(region, region) for region in settings.REGIONS]
