"""A row of a list on a phone: a line or two, where a table has no room."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NarrowRow:
    """The places of the columns of a list; those not named stand below the name.

    Attributes:
        first: columns on the line of the name, the last of them at its end.
        left_out: columns that only wider screens and the page of the row show, but for
            badges.
        titled: columns that say nothing without their title.
    """

    first: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    titled: tuple[str, ...] = ()

    def css_of(self, column: str) -> str:
        if column in self.first:
            return "hs-row-end" if column == self.first[-1] else "hs-row-first"
        return "hs-row-wide" if column in self.left_out else ""
