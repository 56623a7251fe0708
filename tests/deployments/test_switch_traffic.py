"""The example that switches traffic does so, with the API as it is."""

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from deployments.models import Deployment
from hotswap.common.tokens import person_access_token
from tests.common.factories import PersonFactory
from tests.deployments.world import World
from tests.nginx import find_nginx

SCRIPT = Path(settings.BASE_DIR) / "docs/examples/switch_traffic.py"
pytestmark = pytest.mark.django_db(transaction=True)


class Runtime(socketserver.StreamRequestHandler):
    """What the runtime API of HAProxy does: a command a connection, an empty answer."""

    def handle(self) -> None:
        command = self.rfile.readline().decode().strip()
        self.server.said.append(command)  # type: ignore[attr-defined]
        self.wfile.write(b"\n")


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Any]:
    server: Any = socketserver.UnixStreamServer(str(tmp_path / "admin.sock"), Runtime)
    server.said = []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


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
    if nginx is not None:
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
    haproxy: Any,
    tmp_path: Path,
) -> None:
    world, launched = deployment
    options = ("--haproxy", haproxy.server_address)

    run(live_server.url, launched, tmp_path, *options)
    before = set(haproxy.said)
    haproxy.said.clear()
    # Green is held, updated and verified; then blue, which serves, is to drain.
    world.live_on(35)
    world.update_offered()
    world.live_on(10)
    launched.refresh_from_db()
    hold = launched.holds.filter(ended_at=None).last()
    run(live_server.url, launched, tmp_path, *options)

    blue, green = half(launched, 2), half(launched, 1)
    assert before == {
        *(f"set server devices/{name} state ready" for name in blue),
        *(f"set server devices/{name} state drain" for name in green),
    }
    assert hold is not None
    assert (hold.phase, launched.live_fleet) == ("switch", "blue")
    assert set(haproxy.said) == {
        *(f"set server devices/{name} state drain" for name in blue),
        *(f"set server devices/{name} state ready" for name in green),
    }
