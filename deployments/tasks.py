"""Periodic work of the deployments app."""

from celery import shared_task
from django.utils import timezone

from deployments.notifications import outbox
from deployments.services import advance


@shared_task
def tick() -> None:
    """Move every deployment that is due."""
    advance.tick()


@shared_task
def send_notifications() -> None:
    """Send what waits in the outbox.

    Sent when something was put there; the beat finds what is to be tried again.
    """
    outbox.send_due()


@shared_task
def tidy_notifications() -> None:
    """Forget what was told long ago."""
    outbox.tidy(now=timezone.now())
