"""The data folder of a stack."""

import os
import socket
import stat

import pytest

from hotswap.stack.errors import StackError
from hotswap.stack.folder import (
    INTERNAL_PORTS,
    LONGEST_SOCKET_FOLDER,
    StackFolder,
    is_port_free,
    may_enter,
)


@pytest.fixture
def folder(tmp_path) -> StackFolder:
    folder = StackFolder(tmp_path / "data")
    folder.create()
    return folder


def test_a_second_stack_on_the_folder_is_refused_by_name(folder):
    folder.lock()

    with pytest.raises(StackError, match=rf"process {os.getpid()}\) runs on"):
        StackFolder(folder.path).lock()


def test_an_unlocked_folder_can_be_locked_again(folder):
    folder.lock()
    folder.unlock()

    other = StackFolder(folder.path)
    other.lock()
    other.unlock()


def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(StackError, match=r"cannot use .* as data folder"):
        StackFolder(tmp_path / "file" / "data").create()


def test_a_secret_stays_and_is_its_owners_alone(folder):
    secret = folder.secret("redis")

    assert StackFolder(folder.path).secret("redis") == secret
    assert len(secret) == 64
    mode = (folder.secrets / "redis.password").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE(folder.secrets.stat().st_mode) == 0o700


def test_a_port_stays_while_nobody_else_takes_it(folder):
    port = folder.port("redis")

    assert port in INTERNAL_PORTS
    assert folder.port("redis") == port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not is_port_free(port)
        assert folder.port("redis") != port


def test_sockets_lie_within_the_folder_while_its_name_is_short(tmp_path, monkeypatch):
    short = StackFolder(tmp_path)
    monkeypatch.setattr(short, "path", tmp_path)

    if len(os.fsencode(tmp_path / "run")) <= LONGEST_SOCKET_FOLDER:
        assert short.socket_folder() == tmp_path / "run"
    assert stat.S_IMODE(short.socket_folder().stat().st_mode) == 0o700


def test_sockets_move_to_a_short_private_folder_when_the_name_is_long(tmp_path):
    folder = StackFolder(tmp_path / ("long" * 30))
    folder.create()

    sockets = folder.socket_folder()

    try:
        assert len(os.fsencode(sockets)) <= LONGEST_SOCKET_FOLDER
        assert sockets == StackFolder(folder.path).socket_folder()
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    finally:
        sockets.rmdir()


def test_a_short_folder_that_is_open_to_others_is_refused(tmp_path):
    folder = StackFolder(tmp_path / ("long" * 30))
    folder.create()
    sockets = folder.socket_folder()
    sockets.chmod(0o777)

    try:
        with pytest.raises(StackError, match="is open to others"):
            folder.socket_folder()
    finally:
        sockets.rmdir()


def test_logs_of_earlier_runs_are_kept_and_bounded(folder):
    for run in range(6):
        folder.rotate_log("web").write_text(f"run {run}")

    kept = {path.name: path.read_text() for path in folder.logs.iterdir()}

    assert kept == {
        "web.log": "run 5",
        "web.log.1": "run 4",
        "web.log.2": "run 3",
        "web.log.3": "run 2",
    }


def test_the_state_is_its_owners_alone_and_survives_being_torn(folder):
    folder.write_state({"pid": 1})
    folder.write_state({"pid": 2})

    assert stat.S_IMODE(folder.state_file.stat().st_mode) == 0o600
    assert folder.read_state() == {"pid": 2}
    folder.state_file.write_text('{"pid":')
    assert folder.read_state() == {}
    folder.forget_state()
    assert folder.read_state() == {}


def test_entering_depends_on_every_folder_above(tmp_path):
    stranger = 54321
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "outer").chmod(0o700)

    assert not may_enter(inner / "file", stranger)
    assert may_enter(inner / "file", os.getuid())
