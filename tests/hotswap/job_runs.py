"""Runs of periodic jobs that lie back."""

from datetime import timedelta

import pgtrigger
from django.utils import timezone

from hotswap.common.models import JobRun


def run_ago(name: str, seconds: float) -> None:
    """Note that a job ran last so many seconds ago, by the clock of the database."""
    at = timezone.now() - timedelta(seconds=seconds)
    with pgtrigger.ignore("common.JobRun:job_run_noted"):
        JobRun.objects.create(name=name, last_run_at=at, restarted_at=at, noted_at=at)
