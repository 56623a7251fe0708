"""Known faults of the packages in a lock, where the service that knows them answers.

`python -m tests.advisories LOCK` asks OSV (`OSV_URL` in the environment names another
one) by `pip-audit`, and ends with 1 where a package has an advisory. Where the service
does not answer it says that nothing was audited, and ends with 0: who works without a
network is not held up, and cannot take silence for a clean result.
"""

import json
import os
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

OSV_URL = "https://api.osv.dev/v1/query"
SECONDS = 5
# Whatever is known of it: an answer in JSON is one of the service.
QUESTION = {"package": {"name": "pip", "ecosystem": "PyPI"}, "version": "25.0"}


def unreachable(url: str) -> str:
    """Say why the service does not answer; "" if it does."""
    request = Request(
        url,
        data=json.dumps(QUESTION).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urlopen(request, timeout=SECONDS) as answer:
            if answer.status != HTTPStatus.OK:
                return f"it answers {answer.status}"
            json.load(answer)
    except (URLError, OSError) as error:
        return str(getattr(error, "reason", error))
    except ValueError:
        return "something else answers in its place"
    return ""


def audit(lock: Path, url: str) -> int:
    """Audit a lock; return 0 unless a package of it has an advisory."""
    reason = unreachable(url)
    if reason:
        sys.stderr.write(
            f"SKIPPED: {lock.name} was not audited, as {url} cannot be reached "
            f"({reason}). Nothing is known of advisories.\n"
        )
        return 0
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--requirement", str(lock)),
            *("--no-deps", "--disable-pip", "--strict", "--progress-spinner", "off"),
            *("--vulnerability-service", "osv", "--osv-url", url),
        ],
        check=False,
    )
    return done.returncode


if __name__ == "__main__":
    osv_url = os.environ.get("OSV_URL", OSV_URL)
    sys.exit(max(audit(Path(name), osv_url) for name in sys.argv[1:]))
