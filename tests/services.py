"""Start real PostgreSQL and Redis for one run of the tests.

A plugin of pytest (`-p tests.services`), loaded before Django reads its settings. A
server named in the environment is used instead of an embedded one. The servers end
with the run, also when it is killed.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from hotswap.stack.errors import StackError
from hotswap.stack.folder import StackFolder
from hotswap.stack.postgres import PostgresServer
from hotswap.stack.processes import Program, Supervisor
from hotswap.stack.redis import RedisServer

START_SECONDS = 60


def start() -> None:
    """Start what is missing and tell the settings about it."""
    path = Path(tempfile.mkdtemp(prefix="hotswap-tests-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    folder = StackFolder(path)
    folder.create()

    programs: list[Program] = []
    if not os.environ.get("HOTSWAP_DATABASE_URL"):
        postgres = PostgresServer(folder, careless=True)
        os.environ["HOTSWAP_DATABASE_URL"] = postgres.url
        programs.append(postgres.program())
    if not os.environ.get("HOTSWAP_REDIS_URL"):
        redis = RedisServer(folder)
        os.environ["HOTSWAP_REDIS_URL"] = redis.url
        programs.append(redis.program())
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
