"""Exit 0 while an address answers 200: `python -m hotswap.stack.healthcheck URL`.

For the health checks of containers, which have no curl.
"""

import sys

from hotswap.stack.guard import is_healthy


def main() -> None:
    """Ask the address of the command line once."""
    sys.exit(0 if is_healthy(sys.argv[1]) else 1)


if __name__ == "__main__":
    main()
