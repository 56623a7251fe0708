"""`hotswap serve` on a folder whose key files were lost or swapped."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live import LiveStack, alive, running_stack

pytestmark = pytest.mark.stack


def test_a_lost_or_swapped_key_file_is_named_and_its_return_mends_it(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    keys, backup = data / "keys", tmp_path / "backup"
    with running_stack(data):
        pass
    shutil.copytree(keys, backup)
    (token,) = (keys / "tokens").glob("*.pem")
    damages: dict[Path, Callable[[Path], Any]] = {
        keys / "master.key": lambda path: path.unlink(),
        keys / "pepper.key": lambda path: path.write_text("0" * 64),
        keys / "tokens": shutil.rmtree,
    }

    for path, damage in damages.items():
        damage(path)
        stack = LiveStack(data_dir=data)
        stack.output.unlink()
        stack.start()
        assert stack.process is not None
        pids = stack.process_ids()

        assert stack.process.wait(180) == 1

        assert f"HotSwap does not start: the key file {path}" in stack.said() or (
            f"HotSwap does not start: there is no token key in {path}" in stack.said()
        )
        assert "restore it from your backup" in stack.said()
        assert "Traceback" not in stack.said()
        assert not alive(pids)
        shutil.copytree(backup, keys, dirs_exist_ok=True)

    with running_stack(data) as stack:
        assert token.exists()
        assert stack.has_logged("HotSwap ready at")
