"""Periodic work of the devices app."""

from celery import shared_task
from django.utils import timezone

from devices.services import alarms


@shared_task
def sweep_keys() -> None:
    """Tell of keys that are about to expire."""
    alarms.tell_expiring_keys(now=timezone.now())


@shared_task
def tidy_keys() -> None:
    """Forget keys that were retired long ago."""
    alarms.tidy_keys(now=timezone.now())
