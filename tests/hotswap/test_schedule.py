"""The schedule of beat, which people may change in the database."""

from typing import Any

import pytest
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from hotswap import schedule
from hotswap.celery import app
from hotswap.schedule import Scheduler


@pytest.mark.django_db(transaction=True)
def test_beat_asks_for_changes_every_few_seconds_alone(
    django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
    task = PeriodicTask.objects.create(name="a task", task="a task", interval=every)
    scheduler = Scheduler(app=app, lazy=True)
    scheduler.schedule_changed()
    task.enabled = False
    task.save()

    with django_assert_num_queries(0):
        at_once = scheduler.schedule_changed()
    monkeypatch.setattr(schedule, "LOOK_SECONDS", 0.0)
    later = scheduler.schedule_changed()

    assert (at_once, later) == (False, True)
