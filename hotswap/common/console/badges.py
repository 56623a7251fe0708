"""Statuses as people see them: a colour, an icon and a word.

Colours mean the same everywhere: green is done, blue is moving, amber waits for a
person, red has failed, grey has not started.
"""

from django.utils.html import format_html
from django.utils.safestring import SafeString

NOT_STARTED, MOVING, DONE, WAITS, FAILED = "grey", "blue", "green", "amber", "red"


def badge(word: str, tone: str, icon: str, title: str = "") -> SafeString:
    """Show a status: colour, icon and word together."""
    return format_html(
        '<span class="hs-badge hs-{}" title="{}">'
        '<span class="material-symbols-outlined" aria-hidden="true">{}</span>{}</span>',
        tone,
        title,
        icon,
        word,
    )
