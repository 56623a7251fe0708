"""The log of a deployment: the newest lines, by level and by what they say."""

from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.db.models import Q
from django.http import QueryDict

from deployments.choices import Level
from deployments.console.badges import LEVEL_BADGES
from deployments.models import Deployment
from hotswap.common.console.text import event_pattern, span_in_words

PAGE: Final = 50
MAX_TEXT: Final = 200
LEVELS: Final = (
    ("", "All levels", tuple(Level)),
    ("warning", "Warnings and errors", (Level.WARNING, Level.ERROR)),
    ("error", "Errors", (Level.ERROR,)),
)


def log_table(
    deployment: Deployment, query: QueryDict, now: datetime
) -> dict[str, Any]:
    """Return lines of the log, the newest first.

    Args:
        query: of the request: `level`, `text` (of a message, an event or a device) and
            `before` (the number of a line, for the older ones).
    """
    levels = {key: chosen for key, _, chosen in LEVELS}
    level = query.get("level", "")
    level = level if level in levels else ""
    text = query.get("text", "")[:MAX_TEXT].strip()
    before = query.get("before", "")
    events = deployment.events.select_related("device").order_by("-id")
    if level:
        events = events.filter(level__in=levels[level])
    if text:
        events = events.filter(
            Q(message__icontains=text)
            | Q(event__iregex=event_pattern(text))
            | Q(device__device_id__icontains=text)
        )
    is_older = before.isascii() and before.isdigit() and len(before) < 19
    if is_older:
        events = events.filter(pk__lt=int(before))
    found = list(events[: PAGE + 1])
    return {
        "events": [
            {
                "event": event,
                "look": LEVEL_BADGES[event.level],
                "age": span_in_words((now - event.at).total_seconds()),
            }
            for event in found[:PAGE]
        ],
        "levels": [(key, words, key == level) for key, words, _ in LEVELS],
        "level": level,
        "text": text,
        "is_removed": _is_removed(deployment, now),
        "is_older": is_older,
        "older": found[PAGE - 1].pk if len(found) > PAGE else "",
    }


def _is_removed(deployment: Deployment, now: datetime) -> bool:
    """Tell whether its log has been kept for as long as logs are kept."""
    kept, ended = settings.DEPLOYMENT_LOGS_KEPT, deployment.finished_at
    return kept is not None and ended is not None and ended < now - kept
