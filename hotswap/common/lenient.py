"""What a device says, read leniently: the good is taken, the rest left out and named.

A device in the field cannot be corrected by an answer 400. Whatever of its message
cannot be used is left out, and the answer names it: the JSON pointer (RFC 6901) of its
place, and a code.

| Code | Why it was left out |
|---|---|
| `unknown` | no such field; the device may be newer than the server |
| `null` | it has no value |
| `invalid` | it is of another type, or has another form |
| `out_of_range` | it is a number beyond what the field can mean |
| `too_many` | it is beyond the number of entries that are kept |
| `too_long` | it is longer than the field: a text is cut, an id left out |
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# A body can hold a hundred thousand mistakes; nobody reads so many.
MAX_NAMED = 100
MAX_POINTER_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Ignored:
    """A part of a message that was left out."""

    pointer: str
    code: str


def clean_text(text: str) -> str:
    """Return a text without characters that cannot be shown, and without margins."""
    return "".join(each for each in text if each.isprintable()).strip()


@dataclass(slots=True)
class LenientReader:
    """Reads the fields of one JSON object, and notes those that it leaves out.

    What a method cannot read is None, as if the field were missing.

    Attributes:
        given: the object.
        place: its own JSON pointer.
        ignored: what was left out so far, in the order in which it was read.
    """

    given: Mapping[str, Any]
    place: str = ""
    ignored: list[Ignored] = field(default_factory=list)

    def leave_out(self, name: str, code: str) -> None:
        """Note that a field is not used, or not as it was sent."""
        key = clean_text(name).replace("~", "~0").replace("/", "~1")
        self.ignored.append(Ignored(f"{self.place}/{key}"[:MAX_POINTER_LENGTH], code))

    def leave_out_unknown(self, known: Iterable[str]) -> None:
        """Note every field that nobody reads."""
        for name in sorted(self.given.keys() - set(known)):
            self.leave_out(name, "unknown")

    def number(
        self, name: str, low: float, high: float = math.inf, *, slack: float = 0.0
    ) -> float | None:
        """Read a number.

        Args:
            slack: a number that lies by so much beyond a bound counts as the bound:
                such are the errors of rounding.
        """
        if name not in self.given:
            return None
        value = self.given[name]
        if value is None:
            self.leave_out(name, "null")
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.leave_out(name, "invalid")
            return None
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not (math.isfinite(number) and low - slack <= number <= high + slack):
            self.leave_out(name, "out_of_range")
            return None
        return min(max(number, low), high)

    def integer(self, name: str, low: int, high: int) -> int | None:
        """Read a whole number; a fraction is cut off."""
        value = self.given.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            if low <= value <= high:
                return value
            self.leave_out(name, "out_of_range")
            return None
        number = self.number(name, low, high)
        return None if number is None else int(number)

    def text(self, name: str, max_length: int, *, cut: bool = True) -> str:
        """Read a text of one line, `""` where there is none.

        Args:
            cut: what is longer is cut; otherwise it is left out.
        """
        if name not in self.given:
            return ""
        value = self.given[name]
        text = clean_text(value) if isinstance(value, str) else ""
        if not text:
            self.leave_out(name, "null" if value is None else "invalid")
        elif len(text) > max_length:
            self.leave_out(name, "too_long")
            text = text[:max_length] if cut else ""
        return text


def named(ignored: Iterable[Ignored]) -> list[dict[str, str]]:
    """Return what was left out as the answer shows it, the first hundred."""
    return [
        {"pointer": each.pointer, "code": each.code}
        for each in list(ignored)[:MAX_NAMED]
    ]
