"""Write the events of deployments to the server's own log, each as one line.

Rules:
- They are read from the rows, by the tick, so that what a statement logs of thousands
  of devices is there too, and the requests of devices pay nothing for it.
- Each event is written once; whoever dies in the middle of a page writes it again.
- Messages are constant. What people and devices said in their own words stays in the
  deployment's log, from which it can be erased.
"""

import logging
import time
from datetime import datetime

from django.db import connection, transaction

from deployments.choices import Level
from deployments.models import Event, LogPosition
from deployments.rules.codes import CODES
from deployments.rules.events import EventName
from deployments.services.log import context_of

logger = logging.getLogger("deployments.events")
PAGE = 500
RUN_SECONDS = 2.0
LEVELS = {
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
}
LABELS = {event.value: event.label for event in EventName}
GIVEN = """
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END,
           pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    FROM deployments_event_id_seq
"""


def write_new_events() -> int:
    """Write the events that are new, unless another process is at it; count them."""
    if _is_up_to_date():
        return 0
    ends_at = time.monotonic() + RUN_SECONDS
    total = 0
    while time.monotonic() < ends_at:
        with transaction.atomic():
            written = _write_page()
        total += written
        if written < PAGE:
            break
    return total


def _is_up_to_date() -> bool:
    """Look without a lock, as most ticks find nothing new."""
    with connection.cursor() as cursor:
        cursor.execute(GIVEN)
        given = cursor.fetchone()[0]
    return LogPosition.objects.filter(written=given, seen=given).exists()


def _write_page() -> int:
    found = LogPosition.objects.select_for_update(skip_locked=True, no_key=True)
    position = found.first()
    with connection.cursor() as cursor:
        cursor.execute(GIVEN)
        given, oldest, horizon = cursor.fetchone()
    if position is None:
        # What was there before is history; or another process holds it.
        LogPosition.objects.get_or_create(
            pk=1, defaults={"written": given, "seen": given}
        )
        return 0
    if position.written >= position.seen:
        position.seen, position.horizon = given, None
        position.save()
        return 0
    if position.horizon is None:
        # Later than `seen`: a number is given a moment before its transaction counts.
        position.horizon = horizon
    if oldest < position.horizon:
        position.save()
        return 0
    events = list(
        Event.objects.filter(pk__gt=position.written, pk__lte=position.seen)
        .select_related("deployment__firmware", "device")
        .order_by("pk")[:PAGE]
    )
    for event in events:
        write(event)
    is_last = len(events) < PAGE
    position.written = position.seen if is_last else events[-1].pk
    position.save()
    return len(events)


def write(event: Event) -> None:
    """Write one event."""
    code = event.message.partition(":")[0]
    logger.log(
        LEVELS[Level(event.level)],
        LABELS.get(event.event, "Event"),
        extra={
            "traceId": event.deployment.trace_id,
            **context_of(event.deployment),
            "event": event.event,
            "eventId": event.pk,
            "occurredAt": _written(event.at),
            **({"device_id": event.device.device_id} if event.device else {}),
            **({"stage": event.stage_number} if event.stage_number else {}),
            **({"errorCode": code} if code in CODES else {}),
        },
    )


def _written(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
