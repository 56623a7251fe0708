"""Settings of `hotswap serve` and `hotswap demo`: everything on one machine.

Rules:
- Secrets are made at the first start and kept, readable by their owner only, in the
  folder of keys.
- A command run by hand finds the servers of the stack that runs on the same folder.
"""

import contextlib
import json
import os
from pathlib import Path

from hotswap.common.secret_files import read_or_create_secret
from hotswap.paths import DEFAULT_DATA_DIR


def _find_running_stack() -> None:
    """Take the servers' addresses from `stack.json` where the environment has none."""
    folder = Path(os.environ.get("HOTSWAP_DATA_DIR") or DEFAULT_DATA_DIR)
    with contextlib.suppress(OSError, ValueError):
        state = json.loads((folder / "stack.json").read_text())
        os.environ.setdefault("HOTSWAP_DATABASE_URL", state["database_url"])
        os.environ.setdefault("HOTSWAP_REDIS_URL", state["redis_url"])


_find_running_stack()

from hotswap.settings.base import *  # noqa: E402, F403
from hotswap.settings.base import KEYS_DIR, env  # noqa: E402

SECRET_KEY = read_or_create_secret(KEYS_DIR / "django-secret.key")
ALLOWED_HOSTS = env.list("HOTSWAP_ALLOWED_HOSTS", default=["127.0.0.1", "localhost"])
