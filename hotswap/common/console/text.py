"""Times, spans and sizes in words."""

from datetime import datetime

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString


def span_in_words(seconds: float) -> str:
    """Say how long a span is, in its largest unit: `3 min`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def age(at: datetime | None, now: datetime | None = None) -> SafeString:
    """Say how long ago it was, or until it is; the exact time is in the tooltip."""
    if at is None:
        return format_html('<span class="hs-subtle">{}</span>', "–")
    seconds = ((now or timezone.now()) - at).total_seconds()
    words = (
        f"{span_in_words(seconds)} ago"
        if seconds >= 0
        else f"in {span_in_words(-seconds)}"
    )
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        at.isoformat(),
        f"{at:%Y-%m-%d %H:%M:%S}",
        words,
    )


def in_bytes(size: int) -> str:
    """Show a size with its unit: `12.4 MB`."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size} B"


def percent_in_words(value: float | None) -> str:
    """Write a percentage with two digits at most, rounded down; a dash for
    none.

    What is short of a target must not look as if it had met it: 99.996 is `99.99 %`.
    """
    return "–" if value is None else f"{int(value * 100 + 1e-9) / 100:g} %"
