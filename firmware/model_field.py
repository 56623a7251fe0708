"""The choice of a device model in forms of the console."""

from collections.abc import Iterable

from django import forms
from django.urls import reverse
from django.utils.html import format_html


def offer_models(field: forms.Field, choices: Iterable[tuple[str, str]]) -> None:
    """Offer device models; where there is none, say so and where one is added.

    Args:
        choices: name and label of each.
    """
    assert isinstance(field, forms.ChoiceField)
    field.choices = list(choices)
    if not field.choices:
        field.help_text = format_html(
            'There is no device model yet: an Admin adds one under <a class="hs-link" '
            'href="{}">Device models</a> first.',
            reverse("admin:firmware_devicemodel_changelist"),
        )
