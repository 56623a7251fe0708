"""Filters whose value is written; apart, as templates load it before Unfold is."""

from typing import Any, ClassVar

from django.contrib.admin import SimpleListFilter


class TextFilter(SimpleListFilter):
    """A filter whose value is written, not chosen.

    Attributes:
        input_type: of the field that it is written into.
        hint: what may be written.
    """

    input_type: ClassVar[str] = "text"
    hint: ClassVar[str] = ""

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        # Django leaves out filters that have no choice.
        return [("", "")]

    def text(self) -> str:
        """Return what was written, without blanks around it."""
        return (self.value() or "").strip()
