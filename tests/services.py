"""Start real PostgreSQL and Redis for one run of the tests.

A plugin of pytest (`-p tests.services`), loaded before Django reads its settings. A
server named in the environment is used instead of an embedded one. The servers end
with the run, also when it is killed.

Where several processes share the tests (pytest-xdist), each starts its own; what their
parent has started for itself is not theirs.

Python keeps what it has compiled, whatever the environment says: a run starts hundreds
of processes, and each would compile HotSwap's own modules anew.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from hotswap.stack.errors import StackError
from hotswap.stack.folder import StackFolder
from hotswap.stack.postgres import PostgresServer
from hotswap.stack.processes import Program, Supervisor
from hotswap.stack.redis import RedisServer
from tests.prepared import PREPARED, copy_prepared_database, prepared_folder

START_SECONDS = 300
# Names the servers that a run has started, for the processes that share its tests.
OURS = "HOTSWAP_TESTS_SERVE"


def has_embedded_database() -> bool:
    """Tell whether this process has started its database, a copy of a prepared one."""
    return "HOTSWAP_DATABASE_URL" in os.environ.get(OURS, "").split()


def start() -> None:
    """Start what is missing and tell the settings about it."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    for name in os.environ.pop(OURS, "").split():
        os.environ.pop(name, None)
    path = Path(tempfile.mkdtemp(prefix="hotswap-tests-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    os.environ.setdefault(PREPARED, str(prepared_folder()))
    needs_database = not os.environ.get("HOTSWAP_DATABASE_URL")
    if needs_database:
        copy_prepared_database(path)
    folder = StackFolder(path)
    folder.create()

    programs: list[Program] = []
    given: dict[str, str] = {}
    if needs_database:
        postgres = PostgresServer(folder, careless=True)
        given["HOTSWAP_DATABASE_URL"] = postgres.url
        programs.append(postgres.program())
    if not os.environ.get("HOTSWAP_REDIS_URL"):
        redis = RedisServer(folder)
        given["HOTSWAP_REDIS_URL"] = redis.url
        programs.append(redis.program())
    os.environ |= given
    os.environ[OURS] = " ".join(given)
    os.environ["HOTSWAP_DATA_DIR"] = str(path / "data")
    os.environ["HOTSWAP_KEYS_DIR"] = str(path / "data" / "keys")
    (path / "data").mkdir()

    if programs:
        supervisor = Supervisor(programs)
        supervisor.start()
        atexit.register(supervisor.stop)
        supervisor.wait_ready(START_SECONDS)


try:
    start()
except StackError as error:
    pytest.exit(f"the tests need their servers: {error}", returncode=1)
