"""When beat sends its tasks: by the settings, as changed in the database."""

import time

from django_celery_beat.schedulers import DatabaseScheduler

LOOK_SECONDS = 5.0


class Scheduler(DatabaseScheduler):
    """Looks every five seconds, rather than at each beat, whether somebody changed it.

    A beat comes once a second; half of its work was that question.
    """

    _looked_at = float("-inf")

    def schedule_changed(self) -> bool:
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        return bool(super().schedule_changed())
