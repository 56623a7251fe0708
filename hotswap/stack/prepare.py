"""Make the database ready for the other programs: `python -m hotswap.stack.prepare`.

One process for all of it, because most of its time is spent on starting. Prints one
line of JSON: whether the first Admin was made, and how many migrations ran.
"""

import gc
import json
import os
import sys
import time

DATABASE_SECONDS = 30.0


def wait_for_database() -> None:
    """Wait until the database answers.

    Raises:
        SystemExit: it did not in time.
    """
    from django.db import OperationalError, connection

    from hotswap.common.postgresql.roles import owner_login

    deadline = time.monotonic() + DATABASE_SECONDS
    # The application's role may be missing yet.
    with owner_login():
        while True:
            try:
                connection.ensure_connection()
            except OperationalError as error:
                if time.monotonic() > deadline:
                    raise SystemExit(
                        f"the database does not answer: {error}"
                    ) from error
                time.sleep(0.1)
            else:
                return


def migrate() -> int:
    """Apply what is missing as the tables' owner; return how many migrations.

    Raises:
        SystemExit: the roles of the database are not as they must be.
    """
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    from hotswap.common.postgresql.roles import as_owner

    try:
        with as_owner():
            executor = MigrationExecutor(connection)
            missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
            if missing:
                call_command("migrate", interactive=False, verbosity=0)
    except ImproperlyConfigured as error:
        raise SystemExit(f"HotSwap does not start: {error}") from None
    return len(missing)


def main() -> None:
    # It ends soon, and looking for garbage would be a fifth of its work.
    gc.disable()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotswap.settings.local")
    import django
    from django.core.exceptions import ImproperlyConfigured

    try:
        import hotswap.celery  # noqa: F401

        django.setup()
    except ImproperlyConfigured as error:
        raise SystemExit(f"HotSwap does not start: {error}") from None
    from django.contrib.auth import get_user_model
    from django.core.management import CommandError, call_command

    from hotswap.common.idle_limit import no_idle_limit
    from hotswap.common.static_files import collect_static_files
    from hotswap.monitoring.hosts import require_same_stores

    wait_for_database()
    applied = migrate()
    people = get_user_model()._default_manager
    had_people = people.exists()
    try:
        with no_idle_limit():
            call_command("prepare")
        require_same_stores()
    except (CommandError, ImproperlyConfigured) as error:
        # The end of this program's output is what `hotswap serve` shows.
        raise SystemExit(f"HotSwap does not start: {error}") from None
    collect_static_files()
    made = not had_people and people.exists()
    json.dump({"migrations": applied, "admin_created": made}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
