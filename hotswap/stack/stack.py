"""The whole of HotSwap on one machine: servers, web, worker and beat.

Rules:
- PostgreSQL and Redis are embedded, each unless its address is given in the
  environment (`HOTSWAP_DATABASE_URL`, `HOTSWAP_REDIS_URL`).
- Everything is kept below one data folder, which one stack at a time may use.
- The same data folder starts again, however the last run ended.
"""

import contextlib
import http.client
import json
import os
import resource
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hotswap.common.secret_files import EnvironmentWithFiles
from hotswap.paths import PROJECT_DIR
from hotswap.stack.answers import (
    AnswerWatch,
    Ask,
    postgres_answers,
    redis_answers,
    web_answers,
)
from hotswap.stack.errors import StackError
from hotswap.stack.folder import StackFolder, is_port_free
from hotswap.stack.postgres import PostgresServer
from hotswap.stack.processes import Program, Supervisor
from hotswap.stack.redis import RedisServer
from hotswap.stack.ticks import TickWatch, last_tick

# Lines of the web server itself, as those of all other programs.
WEB_LOG_CONFIG = Path(__file__).with_name("granian-log.json")
HOST = "127.0.0.1"
# In which nothing further becomes ready: the slowest step of a first start, which makes
# the tables, takes 10 s on two idle cores.
READY_SECONDS = 300.0
PORT_SECONDS = 2.0
DEFAULT_PORT = 8000
MAX_WEB_WORKERS = 4
# Of each web process. One that says nothing is closed after 30 s, and is cheap; beyond
# this number nobody else would be let in until then.
CONNECTIONS = 4096
# Of each program: the connections, and all else. Shells often allow 1,024.
OPEN_FILES = 16_384
METRICS_LISTEN = "HOTSWAP_METRICS_LISTEN"
# Variables that decide what is run, and so are read before the settings.
OWNER_URL = "HOTSWAP_DATABASE_OWNER_URL"
READ_HERE = (
    *("HOTSWAP_DATABASE_URL", OWNER_URL),
    *("HOTSWAP_REDIS_URL", "HOTSWAP_ADMIN_PASSWORD"),
)


class Stack:
    """One running HotSwap, controlled from this process.

        stack = Stack(data_dir=Path(".hotswap"), port=8000)
        stack.start()
        stack.wait_ready()
        ...
        stack.stop()

    Args:
        data_dir: where everything is kept; made if it is not there.
        port: loopback port of the web server.
        environment: variables for all programs, over those of this process.
        on_event: told of restarts, one line each, from another thread.
        preparation: the module that makes the database ready before anything uses it.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        port: int = DEFAULT_PORT,
        environment: Mapping[str, str] | None = None,
        on_event: Callable[[str], None] | None = None,
        preparation: str = "hotswap.stack.prepare",
    ) -> None:
        self.folder = StackFolder(data_dir)
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.environment: dict[str, str] = {**os.environ, **(environment or {})}
        given = EnvironmentWithFiles(self.environment)
        for name in READ_HERE:
            if value := given.get(name):
                self.environment[name] = value
        self.embedded: list[str] = []
        self.admin_username = ""
        self.admin_password: str | None = None
        self._generated_password = False
        self._made_password = False
        self._on_event = on_event
        self._preparation = preparation
        self._supervisor: Supervisor | None = None
        self._ticks: TickWatch | None = None
        self._answers: AnswerWatch | None = None
        self._asks: dict[str, Ask] = {}

    # --- life -----------------------------------------------------------------

    def start(self) -> None:
        """Start everything in the background.

        Raises:
            StackError: the folder or the port is in use, or a server is missing.
        """
        self.folder.create()
        self.folder.lock()
        allow_open_files()
        try:
            if not self._has_port():
                raise StackError(
                    f"port {self.port} is in use; choose another with HOTSWAP_PORT"
                )
            programs = self._programs()
            for program in programs:
                self.folder.rotate_log(program.name)
            self._supervisor = Supervisor(
                programs, on_event=self._on_event, on_start=self._write_state
            )
            self._write_state()
            self._supervisor.start()
            database_url = self.environment["HOTSWAP_DATABASE_URL"]
            self._ticks = TickWatch(
                self._supervisor,
                read=lambda: last_tick(database_url),
                on_event=self._on_event,
            )
            self._ticks.start()
            self._answers = AnswerWatch(
                self._supervisor, self._asks, on_event=self._on_event
            )
            self._answers.start()
        except BaseException:
            self.folder.forget_state()
            self.folder.unlock()
            raise

    def _has_port(self) -> bool:
        """Tell whether the port is free, or soon is: the last run may be ending."""
        deadline = time.monotonic() + PORT_SECONDS
        while not is_port_free(self.port, HOST):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until `/health/ready` answers 200.

        Args:
            seconds: longest time in which nothing further becomes ready.

        Raises:
            StackError: a program gave up, or the time is over.
        """
        self._running.wait_ready(seconds)
        self._note_admin()
        deadline = time.monotonic() + seconds
        while not answers_ready(self.port):
            if self._running.wait(0.05):
                raise StackError(self.failure or "stopped before it was ready")
            if time.monotonic() > deadline:
                raise StackError(
                    f"{self.url}/health/ready did not answer 200 within {seconds:.0f} "
                    f"s; see {self.folder.logs / 'web.log'}"
                )

    def stop(self) -> None:
        """Stop everything in order; afterwards no process is left."""
        if self._ticks is not None:
            self._ticks.stop()
        if self._answers is not None:
            self._answers.stop()
        if self._supervisor is not None:
            self._supervisor.stop()
            self.folder.forget_state()
            self.folder.unlock()

    def hurry(self) -> None:
        """Make a running `stop` kill what does not end by itself."""
        self._running.hurry()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the stack has stopped by itself; tell whether it has."""
        return self._running.wait(seconds)

    def _write_state(self) -> None:
        """Let commands run by hand find the servers and the programs."""
        self.folder.write_state(
            {
                "pid": os.getpid(),
                "url": self.url,
                "database_url": self.environment["HOTSWAP_DATABASE_URL"],
                "redis_url": self.environment["HOTSWAP_REDIS_URL"],
                "programs": self._running.pids(),
                "restarts": self._running.restarts_by_reason(),
            }
        )

    # --- what others ask ------------------------------------------------------

    @property
    def _running(self) -> Supervisor:
        if self._supervisor is None:
            raise StackError("the stack has not been started")
        return self._supervisor

    @property
    def failure(self) -> str | None:
        """Why the stack stopped by itself; None while it did not."""
        return self._running.failure

    @property
    def made_admin_password(self) -> str | None:
        """The first Admin's password, if this start created both; shown once."""
        return self.admin_password if self._made_password else None

    def pid(self, name: str) -> int | None:
        """Return the process id of `web`, `worker`, `beat`, `redis` or `postgres`."""
        return self._running.pid(name)

    def restarts(self, name: str) -> int:
        """Return how often a program was started again."""
        return self._running.restarts(name)

    # --- the programs ---------------------------------------------------------

    def _programs(self) -> list[Program]:
        programs: list[Program] = []
        if not self.environment.get("HOTSWAP_DATABASE_URL"):
            postgres = PostgresServer(self.folder)
            programs.append(postgres.program())
            self.environment["HOTSWAP_DATABASE_URL"] = postgres.application_url
            self.environment[OWNER_URL] = postgres.url
            self._asks["postgres"] = lambda: postgres_answers(postgres.url)
            self.embedded.append(f"PostgreSQL {postgres.version()}")
        if not self.environment.get("HOTSWAP_REDIS_URL"):
            redis = RedisServer(self.folder)
            programs.append(redis.program())
            self.environment["HOTSWAP_REDIS_URL"] = redis.url
            self._asks["redis"] = lambda: redis_answers(redis.url)
            self.embedded.append(redis.described())
        self._asks["web"] = lambda: web_answers(self.port)
        servers = tuple(program.name for program in programs)

        environment = self.environment
        # What may change the tables is known to who makes them alone.
        owner_url = environment.pop(OWNER_URL, "")
        environment.pop(f"{OWNER_URL}_FILE", None)
        environment.setdefault("DJANGO_SETTINGS_MODULE", "hotswap.settings.local")
        environment["HOTSWAP_DATA_DIR"] = str(self.folder.path)
        environment["HOTSWAP_PORT"] = str(self.port)
        environment["HOTSWAP_SUPERVISED"] = "1"
        environment["PYTHONUNBUFFERED"] = "1"
        self.admin_username = environment.setdefault("HOTSWAP_ADMIN_USERNAME", "admin")
        self.admin_password = environment.pop("HOTSWAP_ADMIN_PASSWORD", None)
        if not self.admin_password:
            self.admin_password = secrets.token_urlsafe(12)
            self._generated_password = True

        def child(
            name: str,
            *arguments: str,
            variables: Mapping[str, str] | None = None,
            **more: object,
        ) -> Program:
            return Program(
                name=name,
                command=[sys.executable, "-m", *arguments],
                log=self.folder.logs / f"{name}.log",
                folder=PROJECT_DIR,
                environment={
                    **environment,
                    # Names the program in `pg_stat_activity`.
                    "PGAPPNAME": f"hotswap-{name}",
                    **(variables or {}),
                },
                **{"needs": (*servers, "prepare"), **more},  # type: ignore[arg-type]
            )

        # One process of Python uses one core.
        processes = environment.get(
            "HOTSWAP_WEB_WORKERS", str(min(os.cpu_count() or 1, MAX_WEB_WORKERS))
        )
        threads = environment.get("HOTSWAP_WEB_THREADS", "16")
        concurrency = environment.get("HOTSWAP_WORKER_THREADS", "4")
        # Quiet: no banner between the lines of the log.
        celery = ("celery", "--quiet", "-A", "hotswap.celery:app")
        listens = {
            name: f"{HOST}:{self.folder.port(f'{name}-metrics')}"
            for name in ("worker", "beat")
        }
        self.folder.write_targets(
            {"hotswap-web": f"{HOST}:{self.port}"}
            | {f"hotswap-{name}": address for name, address in listens.items()}
        )
        programs += [
            child(
                "prepare",
                self._preparation,
                needs=(),
                one_shot=True,
                variables={
                    "HOTSWAP_ADMIN_PASSWORD": self.admin_password or "",
                    OWNER_URL: owner_url,
                },
            ),
            child(
                "worker",
                *(*celery, "worker", "--pool", "threads", "--concurrency", concurrency),
                *("--loglevel", "INFO", "--without-mingle", "--without-gossip"),
                variables={METRICS_LISTEN: listens["worker"]},
            ),
            child(
                "beat",
                *(*celery, "beat", "--loglevel", "INFO", "--pidfile="),
                variables={METRICS_LISTEN: listens["beat"]},
                # Its wish to end gets lost when the signal comes in the middle of a
                # statement; it holds nothing that a kill could lose.
                stop_seconds=2.0,
            ),
            child(
                "web",
                *("granian", "hotswap.wsgi:application", "--interface", "wsgi"),
                *("--host", HOST, "--port", str(self.port), "--no-ws"),
                # Without a length, WSGI shows a body of HTTP/2 as empty.
                *("--http", "1"),
                *("--workers", processes, "--respawn-failed-workers"),
                *("--blocking-threads", threads),
                *("--workers-kill-timeout", "5", "--log-level", "warning"),
                *("--log-config", str(WEB_LOG_CONFIG)),
                # Little is to lie between a download and its receiver.
                *("--http1-buffer-size", "65536"),
                *("--backlog", str(CONNECTIONS), "--backpressure", str(CONNECTIONS)),
                is_ready=lambda: accepts_connections(self.port),
            ),
        ]
        return programs

    def _note_admin(self) -> None:
        """Read from `prepare` whether the first Admin is new."""
        output = (self.folder.logs / "prepare.log").read_text(errors="replace")
        for line in output.splitlines():
            with contextlib.suppress(ValueError):
                answer = json.loads(line)
                if isinstance(answer, dict) and answer.get("admin_created"):
                    self._made_password = self._generated_password


def allow_open_files() -> None:
    """Let the programs have as many files open as they need, as far as one may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = [OPEN_FILES] if hard == resource.RLIM_INFINITY else [OPEN_FILES, hard]
    # Some systems allow less than they say.
    with contextlib.suppress(ValueError, OSError):
        if resource.RLIM_INFINITY != soft < min(limits):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits), hard))


def accepts_connections(port: int) -> bool:
    """Tell whether something listens on a loopback port."""
    try:
        socket.create_connection((HOST, port), timeout=0.5).close()
    except OSError:
        return False
    return True


def answers_ready(port: int) -> bool:
    """Tell whether the web server says that everything it needs is there."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
