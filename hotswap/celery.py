"""The Celery application; loaded by wsgi, manage and the tests."""

import os
from typing import Any

from celery import Celery
from celery.signals import worker_ready

from hotswap.common.garbage import spare_what_is_loaded
from hotswap.monitoring import tasks as _counted_tasks  # noqa: F401

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotswap.settings.local")

app = Celery("hotswap")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_ready.connect
def _on_ready(**_: Any) -> None:
    spare_what_is_loaded()
