"""Periodic work of the deployments app."""

import time

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from deployments.notifications import outbox
from deployments.services.log_lines import write_new_events
from deployments.services.tick import tick as move_deployments
from deployments.services.traces import export_due
from deployments.single_flight import SingleFlight

# Ticks side by side in one process would repeat each other's work. One that is at it
# for longer may be stuck at one deployment; the others are moved by the next.
TICK_TIMEOUT_SECONDS = 10.0
_ticking = SingleFlight(TICK_TIMEOUT_SECONDS)


@shared_task
def tick() -> None:
    """Move every deployment that is due, unless this process is at it already."""
    started = time.monotonic()
    if not _ticking.take(started):
        return
    try:
        move_deployments()
        write_new_events()
    finally:
        _ticking.give_back(started)


@shared_task
def export_traces() -> None:
    """Export the traces of what is over, where a collector is configured."""
    if settings.TRACES_EXPORTED:
        export_due(timezone.now())


@shared_task
def send_notifications() -> None:
    """Send what waits in the outbox.

    Sent when something was put there; the beat finds what is to be tried again.
    """
    outbox.send_due()
