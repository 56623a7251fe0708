"""Production settings behind the shipped configuration of nginx, by a foreign name.

A person logs in to the console, makes a second administrator, uploads an image that the
other one approves, and updates a device: all of it over TLS and by the name that the
documents tell them to choose.
"""

import os
import re
import socket
import ssl
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from tests.devices.pki import Authority
from tests.devices.proxy import running_nginx
from tests.live import PROJECT_DIR, LiveStack, running_stack
from tests.waiting import wait_until

pytestmark = pytest.mark.stack

NAME = "updates.example.com"
SERVERS = ("HOTSWAP_DATABASE", "HOTSWAP_REDIS", "HOTSWAP_S3", "HOTSWAP_METRICS_L")
SECOND_ADMIN = {"username": "second", "password": "another-horse-in-production"}
OLD, NEW = b"the old image", b"the new image"


@dataclass(frozen=True, slots=True)
class Site:
    """HotSwap in production, and how to reach its proxy."""

    stack: LiveStack
    port: int
    authority: Path

    def client(self) -> httpx.Client:
        """Return a client that takes the proxy for the named server."""

        def ask_for_name(request: httpx.Request) -> None:
            request.extensions = {**request.extensions, "sni_hostname": NAME}

        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            verify=ssl.create_default_context(cafile=str(self.authority)),
            headers={"Host": NAME},
            event_hooks={"request": [ask_for_name]},
            timeout=120,
        )

    def person(self, username: str, password: str) -> "Api":
        """Log in to the API."""
        body = {"username": username, "password": password}
        return Api(self.client(), "/auth/token", body)


class Api:
    """Somebody who is logged in to the API."""

    def __init__(self, client: httpx.Client, login: str, body: dict[str, str]) -> None:
        self.client = client
        token = self.send("POST", login, json=body)["access"]
        client.headers["Authorization"] = f"Bearer {token}"

    def send(self, method: str, path: str, **more: Any) -> Any:
        """Send a request that must be granted; return the JSON of its answer."""
        answer = self.client.request(method, f"/api/v1{path}", **more)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    # Its temporary folders are those of the worker, which is `nobody` under root.
    for part in (folder, *folder.parents[:2]):
        part.chmod(0o755)
    secrets = folder / "secrets"
    subprocess.run(
        ["sh", PROJECT_DIR / "deploy" / "make-secrets.sh", secrets],
        env={**os.environ, "HOTSWAP_ALLOWED_HOSTS": NAME},
        check=True,
    )
    (folder / "device-ca.crt").write_text(Authority("devices").root.pem)
    data_dir = tmp_path_factory.mktemp("production") / "data"
    with (
        running_stack(data_dir, environment=environment(secrets)) as stack,
        running_nginx(
            folder,
            upstream_port=stack.port,
            secret=(secrets / "proxy_secret").read_text(),
            server=(secrets / "proxy/server.crt", secrets / "proxy/server.key"),
            device_ca=folder / "device-ca.crt",
            name=NAME,
        ) as port,
    ):
        yield Site(stack, port, secrets / "proxy/server.crt")


def environment(secrets: Path) -> dict[str, str]:
    """Return what docker-compose.yml gives to `web`, with the secrets of its script.

    The servers are the embedded ones.
    """
    compose = yaml.safe_load((PROJECT_DIR / "docker-compose.yml").read_text())
    given = {
        name: value.replace("/run/secrets", str(secrets))
        for name, value in compose["services"]["web"]["environment"].items()
        if value is not None and not name.startswith(SERVERS)
    }
    return given | {
        "DJANGO_SETTINGS_MODULE": "hotswap.settings.production",
        "HOTSWAP_ALLOWED_HOSTS": NAME,
        "HOTSWAP_PUBLIC_URL": f"https://{NAME}",
        # Else both Admins would have to set up a second factor first.
        "HOTSWAP_REQUIRE_MFA": "none",
    }


def csrf_of(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert found, page[:500]
    return found[1]


def post_form(client: httpx.Client, path: str, fields: dict[str, str]) -> None:
    """Fill in the form of a page as a browser does; it must be taken."""
    page = client.get(path)
    assert page.status_code == 200, page.text[:500]
    answer = client.post(
        path,
        data={**fields, "csrfmiddlewaretoken": csrf_of(page.text)},
        headers={"Referer": f"https://{NAME}{path}", "Origin": f"https://{NAME}"},
    )
    assert answer.status_code == 302, answer.text[:2000]


def test_production_is_walked_from_login_to_a_proved_update(site: Site) -> None:
    admin = {
        "username": site.stack.admin_username,
        "password": site.stack.admin_password,
    }
    browser = site.client()
    post_form(browser, "/admin/login/?next=/admin/", admin)
    person = {**SECOND_ADMIN, "email": "", "role": "Admin"}
    post_form(browser, "/admin/common/user/create/", person)
    first, second = site.person(**admin), site.person(**SECOND_ADMIN)
    changed = {
        "currentPassword": SECOND_ADMIN["password"],
        "newPassword": "of-my-own-7x",
    }
    token = second.send("POST", "/auth/password", json=changed)["access"]
    second.client.headers["Authorization"] = f"Bearer {token}"
    first.send("POST", "/device-models", json={"name": "walker"})
    old, new = (
        publish(first, second, version, image)
        for version, image in (("1.0.0", OLD), ("2.0.0", NEW))
    )
    key = first.send("POST", "/devices", json={"deviceId": "w-1", "model": "walker"})
    body = {"deviceId": "w-1", "apiKey": key["apiKey"]}
    device = Api(site.client(), "/auth/device-token", body)
    beat(device, old, str(uuid.uuid4()))

    deployment = first.send(
        "POST",
        "/deployments",
        json={
            "firmwareId": new["id"],
            "strategy": "Direct",
            "targetDevices": ["w-1"],
            "healthCriteria": {"confirmationDuration": "PT2S"},
            "acknowledge": ["whole_fleet", "no_previous_image"],
        },
    )
    boot_id = take_update(device, new)

    path = f"/deployments/{deployment['id']}"

    def is_completed() -> bool:
        beat(device, new, boot_id)
        return bool(first.send("GET", path)["status"] == "Completed")

    wait_until(is_completed, what="completed")
    running = first.send("GET", "/devices/w-1")
    assert running["firmwareChecksum"] == new["checksum"]


def publish(first: Api, second: Api, version: str, image: bytes) -> dict[str, Any]:
    """Upload an image as one administrator and approve it as the other."""
    uploaded = first.send(
        "POST",
        "/firmware",
        files={"file": ("image", image)},
        data={"model": "walker", "version": version},
    )
    approve = f"/firmware/{uploaded['id']}/approve"
    own = first.client.post(f"/api/v1{approve}", json={"comment": "mine"})
    assert own.status_code in (403, 409), own.text
    approved: dict[str, Any] = second.send("POST", approve, json={"comment": "seen"})
    return approved


def beat(device: Api, runs: dict[str, Any], boot_id: str) -> None:
    device.send(
        "POST",
        "/devices/w-1/health",
        json={
            "cpuUsage": 3.0,
            "memoryUsage": 10.0,
            "uptime": 5,
            "bootId": boot_id,
            "firmwareVersion": runs["version"],
            "firmwareChecksum": runs["checksum"],
            "applicationMetrics": {"errorRate": 0.0},
        },
    )


def take_update(device: Api, new: dict[str, Any]) -> str:
    """Be ordered, fetch the image, come up with it and claim it; give the boot id."""
    orders: list[dict[str, Any]] = []

    def is_ordered() -> bool:
        if order := device.send("GET", "/devices/w-1/update"):
            orders.append(order)
        return bool(orders)

    wait_until(is_ordered, what="an order")
    (order,) = orders
    url = urlsplit(order["firmware"]["downloadUrl"])
    assert (url.scheme, url.netloc) in {("https", NAME), ("", "")}
    image = device.client.get(f"{url.path}?{url.query}")
    assert (image.status_code, image.content) == (200, NEW)
    boot_id = str(uuid.uuid4())
    beat(device, new, boot_id)
    device.send(
        "POST",
        f"/devices/w-1/updates/{order['updateId']}/reports",
        json={
            "sequence": 1,
            "status": "confirming",
            "bootId": boot_id,
            "firmwareVersion": new["version"],
            "firmwareChecksum": new["checksum"],
        },
    )
    return boot_id


def test_tls_1_2_is_refused(site: Site) -> None:
    context = ssl.create_default_context(cafile=str(site.authority))
    spoken = {}
    for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        context.maximum_version = version
        with (
            socket.create_connection(("127.0.0.1", site.port), timeout=60) as plain,
            suppress(ssl.SSLError),
            context.wrap_socket(plain, server_hostname=NAME) as secured,
        ):
            spoken[version] = secured.version()

    assert spoken == {ssl.TLSVersion.TLSv1_3: "TLSv1.3"}


def test_probe_and_plain_requests_get_their_answers(site: Site) -> None:
    by_address = httpx.get(f"{site.stack.url}/health/ready", timeout=120)
    foreign = site.client().get("/api/v1/firmware", headers={"Host": "other.example"})
    plain = httpx.get(
        f"{site.stack.url}/api/v1/firmware", headers={"Host": NAME}, timeout=120
    )

    assert by_address.status_code == 200
    assert foreign.status_code == 400
    assert plain.status_code == 301
    assert plain.headers["Location"] == f"https://{NAME}/api/v1/firmware"


def test_browsers_keep_static_files_for_ever_and_get_them_compressed(
    site: Site,
) -> None:
    client = site.client()
    page = client.get("/admin/login/")
    links = re.findall(r'"(/static/hotswap/[^"]+\.css)"', page.text)

    assert links
    files = [
        client.get(link, headers={"Accept-Encoding": packing})
        for link in links
        for packing in ("gzip", "br, gzip")
    ]

    assert page.headers["Content-Encoding"] == "gzip"
    assert "no-store" in page.headers["Cache-Control"]
    for file in files:
        assert re.search(r"\.[0-9a-f]{12}\.css$", file.url.path)
        assert "immutable" in file.headers["Cache-Control"]
        wanted = file.request.headers["Accept-Encoding"].split(",")[0]
        assert file.headers["Content-Encoding"] == wanted
