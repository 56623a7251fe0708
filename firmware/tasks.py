"""Periodic work of the firmware app."""

from celery import shared_task
from django.utils import timezone

from firmware.services import registry, rings


@shared_task
def tidy_store() -> None:
    """Remove what interrupted uploads left behind."""
    registry.tidy_store()


@shared_task
def tend_keys() -> None:
    """Retire, sign and wrap what the rotations of keys have left to do."""
    rings.tend(now=timezone.now())
