"""The Celery application; loaded by wsgi, manage and the tests."""

import contextlib
import gc
import os
from typing import Any

from celery import Celery
from celery.signals import (
    beat_init,
    celeryd_init,
    setup_logging,
    task_postrun,
    task_prerun,
    worker_init,
    worker_process_init,
    worker_ready,
)
from django_structlog.celery.steps import DjangoStructLogInitStep

from hotswap.common.gc_freeze import freeze_loaded_objects
from hotswap.common.logs import configure, line_of, log_everything
from hotswap.monitoring import tasks as _counted_tasks  # noqa: F401

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotswap.settings.local")
# Django's checks look at the code, as `make lint` does; at the start of a worker
# they would load every page and address.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

app = Celery("hotswap")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.autodiscover_tasks(["hotswap"], related_name="retention")
app.steps["worker"].add(DjangoStructLogInitStep)


# Before the worker warns of anything.
@celeryd_init.connect
@setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    """Keep the logs as they are set up for all processes, whatever Celery would do."""
    from django.conf import settings

    configure(settings.LOGGING)
    log_everything()


@celeryd_init.connect
def _end_quietly(**_: Any) -> None:
    """Let the worker say in lines of the log that it ends, as it says all else."""
    from celery.apps import worker

    worker.safe_say = _write_line  # type: ignore[attr-defined]


def _write_line(message: str, *_: Any) -> None:
    # Out of a handler of signals, where a lock of the log may be held.
    with contextlib.suppress(OSError):
        os.write(2, f"{line_of(message, 'celery.apps.worker')}\n".encode())


@task_prerun.connect
@task_postrun.connect
def _keep_connections(sender: Any, **_: Any) -> None:
    """Keep the connections to the database that are good, as Django does by request.

    Celery would close them before and after each task (`CELERY_DB_REUSE_MAX`), which is
    most of the work of one that finds nothing to do.
    """
    if not sender.request.is_eager:
        from django.db import close_old_connections

        close_old_connections()


@celeryd_init.connect
def _pause_collection(**_: Any) -> None:
    """Look for no garbage while a worker loads its tasks; see `collection_paused`."""
    gc.disable()


@worker_init.connect
def _resume_collection(**_: Any) -> None:
    gc.enable()


@worker_init.connect
def _join_as_worker(**_: Any) -> None:
    _join("worker")


@beat_init.connect
def _join_as_beat(**_: Any) -> None:
    _join("beat")


def _join(role: str) -> None:
    from hotswap.monitoring.hosts import join

    join(role)


@worker_init.connect
def _trace_worker(sender: Any, **_: Any) -> None:
    # Where tasks run in processes that are forked, each of them sets up its own.
    if "prefork" not in str(sender.pool_cls):
        _trace("hotswap-worker")


@worker_process_init.connect
def _trace_process(**_: Any) -> None:
    _trace("hotswap-worker")


@beat_init.connect
def _trace_beat(**_: Any) -> None:
    _trace("hotswap-beat")


def _trace(service: str) -> None:
    from hotswap.telemetry import set_up_telemetry

    set_up_telemetry(service)


@worker_ready.connect
def _on_ready(**_: Any) -> None:
    freeze_loaded_objects()
