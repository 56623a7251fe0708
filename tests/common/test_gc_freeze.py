"""What a long-lived process leaves alone when it looks for garbage."""

import gc
import subprocess
import sys

from hotswap.common.gc_freeze import freeze_loaded_objects


def test_what_is_loaded_is_spared_and_what_comes_is_not() -> None:
    try:
        freeze_loaded_objects()
        spared = gc.get_freeze_count()
        late: list[object] = []
        late.append(late)

        assert spared > 10_000
        assert any(each is late for each in gc.get_objects())
    finally:
        gc.unfreeze()


def test_a_web_process_spares_its_code_and_its_views() -> None:
    script = (
        "import gc, sys, hotswap.wsgi\n"
        "print(gc.get_freeze_count(), 'deployments.api.views' in sys.modules)"
    )

    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert int(said[0]) > 50_000
    assert said[1] == "True"
