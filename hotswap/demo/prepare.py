"""Make the demo's database ready, its past included: `python -m hotswap.demo.prepare`.

It stands in the place of `hotswap.stack.prepare`: on an empty database the keys, the
people and all that follows are made by a clock that begins 30 days ago
(`hotswap.demo.history`). Nothing else runs meanwhile, so that no tick of today meets a
deployment of then. On a database that is in use it adds the people who are missing, and
no more.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from hotswap.demo.clock import MovableClock
from hotswap.demo.fleet import DemoFiles, make_roster
from hotswap.demo.people import create_missing, load_cast
from hotswap.stack import prepare
from hotswap.stack.lifeline import end_with_parent


def main() -> None:
    """Prepare the database, write the past if it is empty, and add missing people."""
    end_with_parent()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotswap.settings.local")
    clock = MovableClock()
    clock.install()
    import django

    import hotswap.celery  # noqa: F401

    django.setup()
    from django.contrib.auth import get_user_model

    from hotswap.common.idle_limit import no_idle_limit
    from hotswap.demo.history import LENGTH, write_history

    files = DemoFiles(Path(os.environ["HOTSWAP_DATA_DIR"]) / "demo")
    prepare.wait_for_database()
    prepare.migrate()
    is_new = not get_user_model()._default_manager.exists()
    if is_new:
        clock.set(datetime.now(UTC) - LENGTH)
    prepare.main()
    with no_idle_limit():
        create_missing(load_cast(files.logins))
        if is_new:
            write_history(files=files, roster=make_roster(), clock=clock)
            clock.release()


if __name__ == "__main__":
    main()
