"""Periodic work of the health app."""

from celery import shared_task
from django.utils import timezone

from health.services import history, watching


@shared_task
def sweep() -> None:
    """Judge silence."""
    watching.sweep_now()


@shared_task
def keep_history() -> None:
    """Make the partitions of the days to come."""
    history.make_partitions(now=timezone.now())
