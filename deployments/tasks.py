"""Periodic work of the deployments app."""

import time
from collections.abc import Callable

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from deployments.notifications import outbox
from deployments.services.log_lines import write_new_events
from deployments.services.tick import tick as move_deployments
from deployments.services.tick import tick_early as move_early
from deployments.services.traces import export_due
from deployments.single_flight import Pace, SingleFlight

# Ticks side by side in one process would repeat each other's work. One that is at it
# for longer may be stuck at one deployment; the others are moved by the next.
TICK_TIMEOUT_SECONDS = 10.0
# What early ticks may take of the time, and how long one of them waits for its turn:
# soon after that comes the next regular one.
EARLY_SHARE = 0.1
EARLY_WAIT_SECONDS = 0.5
LOOK_SECONDS = 0.01
_ticking = SingleFlight(TICK_TIMEOUT_SECONDS)
_waiting = SingleFlight(TICK_TIMEOUT_SECONDS)
_pace = Pace(EARLY_SHARE)


@shared_task
def tick() -> None:
    """Move every deployment that is due, unless this process is at it already."""
    _take_turn(move_deployments)


@shared_task
def tick_early() -> None:
    """Move what may have become due, soon, unless ticks take long already.

    It waits for a tick in progress, which may have passed by, and after each for
    nine times as long as it took. One that waits stands for all that are asked for.
    """
    asked_at = time.monotonic()
    if not _waiting.take(asked_at):
        return
    try:
        is_due = _wait_for_turn(asked_at + EARLY_WAIT_SECONDS)
    finally:
        _waiting.give_back(asked_at)
    if is_due:
        _take_turn(move_early)


def _wait_for_turn(until: float) -> bool:
    """Wait until an early tick may begin; tell whether it may, in time."""
    while (now := time.monotonic()) < until:
        if not _ticking.is_taken and not _pace.wait(now):
            return True
        time.sleep(max(LOOK_SECONDS, min(_pace.wait(now), until - now)))
    return False


def _take_turn(move: Callable[[], int]) -> None:
    started = time.monotonic()
    if not _ticking.take(started):
        return
    try:
        move()
        write_new_events()
    finally:
        _ticking.give_back(started)
        _pace.note(started, time.monotonic())


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
