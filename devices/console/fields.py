"""Fields that several forms of the console share."""

import json
from typing import Any

from django import forms
from django.conf import settings
from rest_framework.exceptions import ParseError

from hotswap.common.api.parsers import parse_json


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
            raise forms.ValidationError('Write an object: {"site": "plant-7"}')
        return found


def region_choices() -> list[tuple[str, str]]:
    return [(region, region) for region in settings.REGIONS]
