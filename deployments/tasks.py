"""Periodic work of the deployments app."""

from celery import shared_task

from deployments.services import advance


@shared_task
def tick() -> None:
    """Move every deployment that is due."""
    advance.tick()
