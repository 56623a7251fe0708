"""Periodic work of the firmware app."""

from celery import shared_task
from django.utils import timezone

from firmware.services import audit_anchors, cleanup, copies, key_rotation


@shared_task
def tidy_store() -> None:
    """Remove what interrupted uploads left behind."""
    cleanup.tidy_store()


@shared_task
def publish_audit_anchors() -> None:
    """Bring anchors of the audit trail to the buckets that lack them."""
    audit_anchors.publish_anchors()


@shared_task
def tend_keys() -> None:
    """Retire, sign and wrap what the rotations of keys have left to do."""
    key_rotation.tend(now=timezone.now())


@shared_task
def complete_copies() -> None:
    """Bring images to the buckets that do not hold them yet."""
    copies.complete_copies()
