"""Periodic work of the devices app."""

from celery import shared_task
from django.utils import timezone

from devices.import_lines import LineReader
from devices.services import alarms, enrolment, erasure, imports


@shared_task
def sweep_keys() -> None:
    """Tell of keys and certificates that are about to expire."""
    now = timezone.now()
    alarms.announce_expiring_keys(now=now)
    alarms.announce_expiring_certificates(now=now)


@shared_task
def announce_enrolments() -> None:
    """Tell of devices that wait to be enrolled."""
    enrolment.announce_waiting(now=timezone.now())


@shared_task
def run_imports() -> None:
    """Work off the files of devices that wait, and erase keys that have had their time.

    Sent when a file has arrived; the beat finds what a stopped worker left behind.
    """
    imports.run_imports(reader_of=LineReader)
    imports.erase_due_keys(now=timezone.now())


@shared_task
def tidy_erased() -> None:
    """Forget what was written at the moment of an erasure."""
    erasure.tidy_erased()
