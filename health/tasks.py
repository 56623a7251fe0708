"""Periodic work of the health app."""

from celery import shared_task

from health.services import watching


@shared_task
def sweep() -> None:
    """Judge silence."""
    watching.sweep_now()
