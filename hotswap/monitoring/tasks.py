"""Counts the work of this worker or beat, and shows it at an address of its own.

Rules:
- Worker and beat have no web server: where `HOTSWAP_METRICS_LISTEN` names an address,
  they answer `/metrics` and `/health` there.
- They are healthy while they work: a task has ended here, or was sent from here, within
  the last minute. Without Redis nobody can, and that is nobody's fault.
- Each message says when it was sent, so that the age of the queue can be told.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import redis
from celery.signals import (
    beat_init,
    before_task_publish,
    task_failure,
    task_postrun,
    task_prerun,
    worker_ready,
)
from django.conf import settings
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from hotswap.monitoring.tokens import is_metrics_token

# In the headers of a message: seconds since 1970.
SENT_AT: Final = "hotswap_sent_at"
TASKS_SENT: Final = Counter(
    "hotswap_tasks_sent", "Tasks that this process put into the queue", ["task"]
)
TASK_DURATION: Final = Histogram(
    "hotswap_task_duration_seconds",
    "How long the tasks of this worker took",
    ["task"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
TASKS_FAILED: Final = Counter(
    "hotswap_tasks_failed", "Tasks of this worker that raised an error", ["task"]
)
LAST_TASK: Final = Gauge(
    "hotswap_task_last_timestamp_seconds",
    "When a task last ended here",
    ["task"],
    multiprocess_mode="max",
)
# Seconds without work; ticks and sweeps come every second.
IDLE_LIMIT: Final = 60.0
REDIS_SECONDS: Final = 2.0
_begun: dict[str, float] = {}


class LastWork:
    """When this process last did its work."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def note(self) -> None:
        """Note work that was done now."""
        self._at = time.monotonic()

    def idle_seconds(self) -> float:
        """Return for how long nothing was done."""
        return time.monotonic() - self._at


last_work = LastWork()


def is_working() -> bool:
    """Tell whether this process does its work, as far as it can."""
    return last_work.idle_seconds() <= IDLE_LIMIT or not _has_redis()


def _has_redis() -> bool:
    client = redis.Redis.from_url(
        settings.CELERY_BROKER_URL,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
    )
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


@before_task_publish.connect
def _note_sent(sender: str = "", headers: Any = None, **_: Any) -> None:
    if isinstance(headers, dict):
        headers[SENT_AT] = time.time()
    TASKS_SENT.labels(sender).inc()
    last_work.note()


@task_prerun.connect
def _note_begun(task_id: str = "", **_: Any) -> None:
    _begun[task_id] = time.perf_counter()


@task_postrun.connect
def _note_ended(task_id: str = "", task: Any = None, **_: Any) -> None:
    last_work.note()
    started = _begun.pop(task_id, None)
    if started is not None and task is not None:
        TASK_DURATION.labels(task.name).observe(time.perf_counter() - started)
        LAST_TASK.labels(task.name).set_to_current_time()


@task_failure.connect
def _note_failed(sender: Any = None, **_: Any) -> None:
    if sender is not None:
        TASKS_FAILED.labels(sender.name).inc()


class _Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self) -> None:
        header = self.headers.get("Authorization", "").encode("utf-8", "replace")
        if self.path == "/health":
            is_well = is_working()
            idle = round(last_work.idle_seconds(), 1)
            said = {"status": "ok" if is_well else "idle", "idleSeconds": idle}
            self._answer(
                200 if is_well else 503, "application/json", json.dumps(said).encode()
            )
        elif self.path != "/metrics":
            self.send_error(404)
        elif settings.METRICS_TOKEN and not is_metrics_token(header):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Bearer realm="hotswap"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Scrapes leave no line in the log."""


def serve_metrics(address: str) -> ThreadingHTTPServer | None:
    """Answer `/metrics` in the background; nothing happens without an address.

    Args:
        address: host and port, as `0.0.0.0:9464`.
    """
    if not address:
        return None
    host, _, port = address.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), _Handler)
    server.daemon_threads = True
    threading.Thread(
        target=server.serve_forever, name="hotswap-metrics", daemon=True
    ).start()
    return server


@worker_ready.connect
@beat_init.connect
def _on_ready(**_: Any) -> None:
    serve_metrics(settings.METRICS_LISTEN)
