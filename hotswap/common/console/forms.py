"""Forms in the console's clothes."""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.utils.text import capfirst
from rest_framework.exceptions import ErrorDetail, Throttled, ValidationError
from rest_framework.serializers import BaseSerializer
from unfold.widgets import INPUT_CLASSES, TEXTAREA_CLASSES

from hotswap.common.errors import HotSwapError
from hotswap.common.signatures import FIELD as SIGNATURE


class ConsoleForm(forms.Form):
    """A form in the console's clothes, whose errors can come from a service."""

    required_css_class = "required"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            widget = field.widget
            if isinstance(widget, forms.Textarea):
                widget.attrs.setdefault("class", " ".join(TEXTAREA_CLASSES))
                if str(widget.attrs.get("rows")) == "10":
                    # Django's own default; a form that wants more says so.
                    widget.attrs["rows"] = 4
            elif not isinstance(
                widget,
                forms.CheckboxInput
                | forms.RadioSelect
                | forms.CheckboxSelectMultiple
                | forms.ClearableFileInput
                | forms.HiddenInput,
            ):
                widget.attrs.setdefault("class", " ".join(INPUT_CLASSES))

    def ask_for_signature(self, statement: str) -> None:
        """Ask the person to sign: the password, or a code, once more.

        Args:
            statement: what the signature says.
        """
        self.fields[SIGNATURE] = forms.CharField(
            label="Signature: your password, or the code of your authenticator app",
            max_length=1024,
            strip=False,
            widget=forms.PasswordInput(
                attrs={
                    "autocomplete": "current-password",
                    "class": " ".join(INPUT_CLASSES),
                },
                render_value=False,
            ),
            help_text=f"You sign: “{statement}”",
        )

    def refuse(self, error: HotSwapError) -> None:
        """Show why a service refused, with the first reasons it names."""
        details = [error.detail, *(part.detail for part in error.errors[:20])]
        for detail in dict.fromkeys(details):
            self.add_error(None, capfirst(detail))

    def check_with(
        self, serializer_class: type[BaseSerializer[Any]], data: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Validate as the API does; errors go to the fields of the same name."""
        serializer = serializer_class(data=data)
        if serializer.is_valid():
            found: dict[str, Any] = serializer.validated_data
            return found
        self.take_errors(serializer.errors)
        return None

    def take_errors(self, errors: Any, prefix: str = "") -> None:
        """Put nested errors of the API beside the fields they speak of."""
        for name, found in errors.items():
            full = f"{prefix}{name}"
            if isinstance(found, dict):
                if all(isinstance(key, str) for key in found):
                    self.take_errors(found, f"{full}-")
                    continue
                # By their place in a list, which people count from one.
                found = [
                    f"value {place + 1}: {text}"
                    for place, part in found.items()
                    for text in part
                ]
            # What stands in no field of its own is said beside the one that holds it.
            outer = prefix.removesuffix("-")
            field = next((each for each in (full, outer) if each in self.fields), None)
            label = "" if field == full else f"{name if field else full}: "
            for text in found:
                sentence = capfirst(f"{label}{text}")
                # What two fields are wrong about together is said once.
                if all(sentence not in errors for errors in self.errors.values()):
                    self.add_error(field, sentence)


class ReasonForm(ConsoleForm):
    reason = forms.CharField(
        max_length=2000,
        widget=forms.Textarea,
        help_text="Kept in the audit trail and in the log.",
    )


class CommentForm(ConsoleForm):
    comment = forms.CharField(max_length=2000, widget=forms.Textarea, required=False)


class EmptyForm(ConsoleForm):
    """Nothing to ask; the POST itself is the confirmation."""


def error_lines(error: ValidationError) -> list[str]:
    """Flatten an error of the API into sentences."""

    def walk(found: Any, name: str) -> Iterable[str]:
        if isinstance(found, dict):
            for key, part in found.items():
                yield from walk(part, str(key))
        elif isinstance(found, list | tuple):
            for part in found:
                yield from walk(part, name)
        elif isinstance(found, ErrorDetail):
            yield f"{name}: {found}" if name else str(found)

    return list(walk(error.detail, ""))


def throttled_words(error: Throttled) -> str:
    """Say when one may try again."""
    seconds = getattr(error, "wait", None) or 60
    return f"Too many failures or attempts: wait {seconds:.0f} s and try again."
