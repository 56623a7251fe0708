"""Periodic work of the common app."""

from celery import shared_task
from django.utils import timezone

from hotswap.common import metrics
from hotswap.common.trail import sealer


@shared_task
def fold_metrics() -> None:
    """Sum up what was counted."""
    metrics.fold()


@shared_task
def seal_audit_trail() -> None:
    """Chain what is new in the audit trail, and anchor the chain once a day."""
    sealer.tend(now=timezone.now())
