"""Collect the static files where the programs cannot write beside the source.

That is in an image of a container and below systemd: `python -m hotswap.stack.static`.
"""

import os
import sys


def main() -> None:
    import django

    # What is collected is the same under all settings.
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotswap.settings.local")
    django.setup()
    from hotswap.common.static_files import collect_static_files

    sys.exit(0 if collect_static_files() else 1)


if __name__ == "__main__":
    main()
