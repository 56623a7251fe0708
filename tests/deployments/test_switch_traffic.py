"""The example that switches traffic does so, with the API as it is."""

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings

from deployments.models import Deployment
from hotswap.common.tokens import person_access_token
from hotswap.stack.folder import free_port
from tests.common.factories import PersonFactory
from tests.deployments.world import World
from tests.haproxy import find_haproxy
from tests.nginx import find_nginx
from tests.waiting import wait_until

SCRIPT = Path(settings.BASE_DIR) / "docs/examples/switch_traffic.py"
CONFIGURATION = SCRIPT.with_name("haproxy.cfg")
pytestmark = pytest.mark.django_db(transaction=True)


class Device(http.server.BaseHTTPRequestHandler):
    """What a device serves: its name."""

    def do_GET(self) -> None:
        name = self.server.name.encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def devices() -> Iterator[dict[str, int]]:
    """Four devices that serve: their names and ports."""
    servers: list[Any] = []
    for number in range(4):
        server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Device)
        server.name = f"d-00{number}"
        servers.append(server)
    threads = [
        threading.Thread(target=each.serve_forever, args=(0.05,)) for each in servers
    ]
    for thread in threads:
        thread.start()
    yield {each.name: each.server_port for each in servers}
    for each in servers:
        each.shutdown()
        each.server_close()
    for thread in threads:
        thread.join()


@dataclass(frozen=True, slots=True)
class Balancer:
    """A HAProxy that runs the documented configuration."""

    port: int
    socket: Path

    def served_by(self) -> set[str]:
        """Return who answers, of many requests."""
        url = f"http://127.0.0.1:{self.port}/"
        with httpx.Client(trust_env=False, timeout=60) as client:
            answers = [client.get(url) for _ in range(12)]
        assert {each.status_code for each in answers} == {200}
        return {each.text for each in answers}


@pytest.fixture
def haproxy(devices: dict[str, int]) -> Iterator[Balancer]:
    program = find_haproxy()
    assert program, "no HAProxy: run `make proxy`"
    # The path of a socket is short, and those of tests are not.
    with tempfile.TemporaryDirectory(prefix="hs-") as name:
        folder, port = Path(name), free_port()
        lines = [
            line
            for line in CONFIGURATION.read_text().splitlines()
            if not line.startswith("    server pump-")
        ]
        lines += [
            f"    server {device} 127.0.0.1:{its} check"
            for device, its in devices.items()
        ]
        text = "\n".join([*lines, ""])
        for written, own in (
            ("/run/haproxy/admin.sock", f"{folder}/admin.sock"),
            ("/var/lib/haproxy/servers", f"{folder}/servers"),
            ("bind :8080", f"bind 127.0.0.1:{port}"),
        ):
            assert written in text
            text = text.replace(written, own)
        configuration = folder / "haproxy.cfg"
        configuration.write_text(text)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, "-db", "-f", str(configuration)], stdout=log, stderr=log
            )
        balancer = Balancer(port, folder / "admin.sock")
        try:
            wait_until(
                lambda: process.poll() is not None or _answers(port),
                what="HAProxy answers",
            )
            assert process.poll() is None, (folder / "log").read_text()
            yield balancer
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.fixture
def deployment() -> tuple[World, Deployment]:
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(4, old)
    launched = world.launch(
        new,
        "BlueGreen",
        parameters={"verification_duration": 5.0, "switch_hold": 30.0},
    )
    return world, launched


def run(site: str, deployment: Deployment, folder: Path, *more: str) -> None:
    token = folder / "token"
    token.write_text(person_access_token(PersonFactory.create()))
    subprocess.run(
        [
            *(sys.executable, str(SCRIPT), site, str(deployment.pk)),
            *("--token-file", str(token), "--once", *more),
        ],
        check=True,
        timeout=120,
        env={**os.environ, "no_proxy": "*"},
    )


def half(deployment: Deployment, stage: int) -> set[str]:
    targets = deployment.targets.filter(stage_number=stage)
    return set(targets.values_list("device__device_id", flat=True))


def test_nginx_gets_an_upstream_of_the_fleet_that_serves(
    live_server: Any, deployment: tuple[World, Deployment], tmp_path: Path
) -> None:
    _, launched = deployment
    addresses = tmp_path / "addresses.json"
    addresses.write_text(
        json.dumps({f"d-00{n}": f"127.0.0.1:900{n}" for n in range(4)})
    )
    upstream, reloads = tmp_path / "devices.conf", tmp_path / "reloads"
    options = (
        *("--addresses", str(addresses), "--nginx", str(upstream)),
        *("--reload", f"sh -c 'echo reloaded >> {reloads}'"),
    )

    run(live_server.url, launched, tmp_path, *options)
    run(live_server.url, launched, tmp_path, *options)

    up = {
        line.rsplit("# ")[1]
        for line in upstream.read_text().splitlines()
        if "server" in line and " down" not in line
    }
    assert launched.live_fleet == "blue"
    assert up == half(launched, 2)
    assert reloads.read_text() == "reloaded\n"
    nginx = find_nginx()
    assert nginx, "no nginx: run `make proxy`"
    whole = tmp_path / "nginx.conf"
    whole.write_text(
        f"pid {tmp_path}/pid; events {{}} http {{ include {upstream}; "
        "access_log off; server { listen 127.0.0.1:9; "
        "location / { proxy_pass http://devices; } } }"
    )
    command = [nginx, "-t", "-q", "-c", str(whole), "-e", str(tmp_path / "errors")]
    subprocess.run(command, check=True)


def test_haproxy_takes_traffic_off_the_fleet_that_is_to_drain(
    live_server: Any,
    deployment: tuple[World, Deployment],
    haproxy: Balancer,
    tmp_path: Path,
) -> None:
    world, launched = deployment
    options = ("--haproxy", str(haproxy.socket))
    assert haproxy.served_by() == {f"d-00{number}" for number in range(4)}

    run(live_server.url, launched, tmp_path, *options)
    before = haproxy.served_by()
    # Green is held, updated and verified; then blue, which serves, is to drain.
    world.live_on(35)
    world.update_offered()
    world.live_on(10)
    launched.refresh_from_db()
    hold = launched.holds.filter(ended_at=None).last()
    run(live_server.url, launched, tmp_path, *options)

    blue, green = half(launched, 2), half(launched, 1)
    assert before == blue
    assert hold is not None
    assert (hold.phase, launched.live_fleet) == ("switch", "blue")
    assert haproxy.served_by() == green
