"""Periodic work of the firmware app."""

from celery import shared_task

from firmware.services import registry


@shared_task
def tidy_store() -> None:
    """Remove what interrupted uploads left behind."""
    registry.tidy_store()
