"""Collect the static files for an image: `python -m hotswap.stack.static`."""

import sys


def main() -> None:
    import django

    django.setup()
    from hotswap.common.static_files import collect_static_files

    sys.exit(0 if collect_static_files() else 1)


if __name__ == "__main__":
    main()
