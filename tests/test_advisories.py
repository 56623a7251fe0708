"""The audit of the lock: clean, with an advisory, and where nobody answers."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.live import PROJECT_DIR, clean_environment

LOCK = "some-package==1.0.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"
ADVISORY = {
    "schema_version": "1.4.0",
    "id": "PYSEC-0000-1",
    "summary": "It lets anybody in.",
    "affected": [
        {
            "package": {"name": "some-package", "ecosystem": "PyPI"},
            "ranges": [
                {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2"}]}
            ],
        }
    ],
}


@contextmanager
def service(known: dict[str, Any], status: int = 200) -> Iterator[str]:
    """Answer as OSV does: with what is known of each package."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = known.get(asked["package"]["name"])
            content = json.dumps({"vulns": [found]} if found else {}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def audited(url: str, lock: Path) -> "subprocess.CompletedProcess[str]":
    lock.write_text(LOCK)
    return subprocess.run(
        [sys.executable, "-m", "tests.advisories", str(lock)],
        cwd=PROJECT_DIR,
        env={**clean_environment(), "OSV_URL": url, "XDG_CACHE_HOME": str(lock.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_package_with_an_advisory_fails(tmp_path: Path) -> None:
    with service({"some-package": ADVISORY}) as url:
        done = audited(url, tmp_path / "some.lock")

    assert done.returncode == 1
    assert "PYSEC-0000-1" in done.stdout


def test_packages_without_one_pass(tmp_path: Path) -> None:
    with service({}) as url:
        done = audited(url, tmp_path / "some.lock")

    assert done.returncode == 0, done.stderr
    assert "SKIPPED" not in done.stderr


@pytest.mark.parametrize("kind", ["nobody", "refusal"])
def test_where_the_service_does_not_answer_it_says_so_and_passes(
    tmp_path: Path, kind: str
) -> None:
    with service({}, status=503) as url:
        address = url if kind == "refusal" else "http://127.0.0.1:1/v1/query"
        done = audited(address, tmp_path / "some.lock")

    assert done.returncode == 0
    assert "SKIPPED: some.lock was not audited" in done.stderr
