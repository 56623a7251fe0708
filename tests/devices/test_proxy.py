"""Client certificates through a real nginx in front of a real HotSwap."""

import contextlib
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import httpx
import pytest

from tests.deployments.live import LiveAdmin, LiveDevice
from tests.devices.pki import Authority, Credential
from tests.devices.proxy import running_nginx
from tests.live import LiveStack, running_stack

SECRET = "a secret of nginx and HotSwap alone"
SIZE = 32_000_000
PACE = 1_300_000
MOST_AFTER = 20_000_000
# What a client's own system takes in ahead of it is not what is being tried.
SMALL_BUFFER = (socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)


@dataclass(frozen=True, slots=True)
class Site:
    """HotSwap behind nginx, an Admin, and who signs for devices."""

    stack: LiveStack
    admin: LiveAdmin
    port: int
    authority: Authority
    folder: Path
    model: str
    old: dict[str, Any]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/api/v1"

    def client(
        self,
        credential: Credential | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Client:
        """Return a client of nginx, with a certificate or without."""
        context = ssl.create_default_context(cafile=str(self.folder / "server-ca.crt"))
        if credential is not None:
            files = credential.write(self.folder, f"client-{secrets.token_hex(4)}")
            context.load_cert_chain(*map(str, files))
        transport = httpx.HTTPTransport(verify=context, socket_options=[SMALL_BUFFER])
        return httpx.Client(
            base_url=self.url, transport=transport, headers=headers, timeout=120
        )

    def register(self, credential: Credential | None = None) -> LiveDevice:
        """Register a device, and its certificate."""
        (device,) = self.admin.register(self.model, 1, self.old)
        if credential is not None:
            self.admin.post(
                f"/devices/{device.name}/certificates", {"certificate": credential.pem}
            )
        found: LiveDevice = device
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    # Its temporary folders are those of the worker, which is `nobody` under root.
    for part in (folder, *folder.parents[:2]):
        part.chmod(0o755)
    for_servers, for_devices = Authority("servers"), Authority("devices")
    (folder / "server-ca.crt").write_text(for_servers.root.pem)
    (folder / "device-ca.crt").write_text(for_devices.root.pem)
    server = for_servers.issue("localhost").write(folder, "server")
    environment = {
        "HOTSWAP_DEVICE_CERTIFICATES": "optional",
        "HOTSWAP_PROXY_SECRET": SECRET,
    }
    with (
        running_stack(
            tmp_path_factory.mktemp("behind") / "data", environment=environment
        ) as stack,
        running_nginx(
            folder,
            upstream_port=stack.port,
            secret=SECRET,
            server=server,
            device_ca=folder / "device-ca.crt",
        ) as port,
    ):
        admin = LiveAdmin(stack)
        admin.post("/device-models", {"name": "proxied"})
        old = admin.upload("proxied", "1.0.0", b"old")
        yield Site(stack, admin, port, for_devices, folder, "proxied", old)


def poll(client: httpx.Client, device: LiveDevice) -> tuple[int, str]:
    """Ask for work; give the status and the code of the problem."""
    answer = client.get(f"/devices/{device.name}/update")
    is_problem = "problem" in answer.headers.get("Content-Type", "")
    return answer.status_code, answer.json()["code"] if is_problem else ""


def forged(credential: Credential) -> dict[str, str]:
    """Return what a liar writes into the headers of the proxy, in every spelling."""
    pem = quote(credential.pem)
    values = {
        "X-Client-Cert": pem,
        "X-Client-Verify": "SUCCESS",
        "X-HotSwap-Proxy": f"guessed;127.0.0.1;SUCCESS;{pem}",
    }
    return values | {name.replace("-", "_"): text for name, text in values.items()}


def test_a_certificate_opens_its_device_over_tls_1_3(site: Site) -> None:
    credential = site.authority.issue("good")
    device = site.register(credential)

    with site.client(credential) as client:
        found = poll(client, device)
        token = client.post("/auth/device-token", json={"deviceId": device.name})
        with client.stream("GET", f"/devices/{device.name}/update") as answer:
            stream = answer.extensions["network_stream"]
            version = stream.get_extra_info("ssl_object").version()

    assert found == (204, "")
    assert token.status_code == 200
    assert version == "TLSv1.3"
    bearer = {"Authorization": f"Bearer {token.json()['access']}"}
    with site.client(None, bearer) as client:
        assert poll(client, device) == (204, "")


def test_without_a_certificate_the_key_opens(site: Site) -> None:
    device = site.register()
    body = {"deviceId": device.name, "apiKey": device.api_key}

    with site.client() as client:
        before = poll(client, device)
        token = client.post("/auth/device-token", json=body).json()["access"]
        after = client.get(
            f"/devices/{device.name}/update",
            headers={"Authorization": f"Bearer {token}"},
        )

    assert before == (401, "not_authenticated")
    assert after.status_code == 204


def test_a_certificate_of_another_authority_is_refused_by_nginx(site: Site) -> None:
    foreign = Authority("devices").issue("foreign")
    device = site.register(foreign)

    with site.client(foreign) as client:
        answer = client.get(f"/devices/{device.name}/update")

    assert answer.status_code == 400
    assert "certificate" in answer.text


def test_a_certificate_that_nobody_registered_is_refused(site: Site) -> None:
    device = site.register(site.authority.issue("registered"))

    with site.client(site.authority.issue("not registered")) as client:
        assert poll(client, device) == (401, "certificate_refused")


def test_what_a_client_writes_into_the_headers_is_overwritten(site: Site) -> None:
    credential = site.authority.issue("victim")
    device = site.register(credential)
    other = site.authority.issue("other")
    of_other = site.register(other)

    with site.client(None, forged(credential)) as client:
        without = poll(client, device)
    with site.client(other, forged(credential)) as client:
        beside = poll(client, device)
        own = poll(client, of_other)

    assert without == (401, "not_authenticated")
    assert beside == (403, "foreign_device")
    assert own == (204, "")


def test_a_proxy_that_lets_underscores_through_lets_nobody_in(site: Site) -> None:
    credential = site.authority.issue("underscored")
    device = site.register(credential)
    own = site.authority.issue("own")
    site.register(own)
    folder = site.folder / "underscores"
    folder.mkdir(mode=0o755)
    with running_nginx(
        folder,
        upstream_port=site.stack.port,
        secret=SECRET,
        server=(site.folder / "server.crt", site.folder / "server.key"),
        device_ca=site.folder / "device-ca.crt",
        underscores="on",
    ) as port:
        lenient = replace(site, port=port)
        with lenient.client(None, forged(credential)) as client:
            without = poll(client, device)
        with lenient.client(own, forged(credential)) as client:
            beside = poll(client, device)
        with lenient.client(credential) as client:
            honest = poll(client, device)

    assert without == (401, "certificate_refused")
    assert beside == (401, "certificate_refused")
    assert honest == (204, "")


def test_bodies_that_drip_through_the_proxy_keep_nobody_waiting(site: Site) -> None:
    context = ssl.create_default_context(cafile=str(site.folder / "server-ca.crt"))
    head = (
        f"POST /api/v1/auth/refresh HTTP/1.1\r\nHost: localhost:{site.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"
    )
    with contextlib.ExitStack() as opened:
        for _ in range(40):
            plain = socket.create_connection(("localhost", site.port), timeout=60)
            dripping = opened.enter_context(
                context.wrap_socket(plain, server_hostname="localhost")
            )
            dripping.sendall(head.encode())
        with site.client() as client:
            alive = [
                client.get(f"https://localhost:{site.port}/health").status_code
                for _ in range(5)
            ]
            # As a body of somebody whom nobody knows: nginx holds the others.
            device = site.register()
            body = {"deviceId": device.name, "apiKey": device.api_key}
            token = client.post("/auth/device-token", json=body)

    assert alive == [200] * 5
    assert token.status_code == 200


@pytest.mark.parametrize("secret", [None, "", "guessed", SECRET[:-1]])
def test_past_the_proxy_the_headers_are_refused(site: Site, secret: str | None) -> None:
    credential = site.authority.issue("direct")
    device = site.register(credential)
    headers = forged(credential)
    if secret is not None:
        del headers["X_HotSwap_Proxy"]
        pem = quote(credential.pem)
        headers["X-HotSwap-Proxy"] = f"{secret};127.0.0.1;SUCCESS;{pem}"

    with httpx.Client(base_url=f"{site.stack.url}/api/v1", headers=headers) as client:
        assert poll(client, device) == (401, "certificate_refused")


def test_a_removed_certificate_and_a_revoked_device_are_out_at_once(site: Site) -> None:
    removed, revoked = site.authority.issue("removed"), site.authority.issue("revoked")
    first, second = site.register(removed), site.register(revoked)

    with site.client(removed) as client:
        before = poll(client, first)
        path = f"/devices/{first.name}/certificates/{removed.fingerprint}"
        assert site.admin.client.delete(path).status_code == 204
        after = poll(client, first)
    with site.client(revoked) as client:
        assert poll(client, second) == (204, "")
        site.admin.post(f"/devices/{second.name}/revoke", {}, 200)
        revoked_answer = poll(client, second)

    assert (before, after) == ((204, ""), (401, "certificate_refused"))
    assert revoked_answer == (401, "certificate_refused")


def test_an_alarm_names_the_address_that_the_proxy_saw(site: Site) -> None:
    device = site.register()
    site.admin.post(f"/devices/{device.name}/revoke", {}, 200)
    body = {"deviceId": device.name, "apiKey": device.api_key}

    with site.client(None, {"X-Real-IP": "203.0.113.66"}) as client:
        assert client.post("/auth/device-token", json=body).status_code == 401

    alarm = site.admin.get(f"/devices/{device.name}")["alarm"]
    assert alarm["address"] == "127.0.0.1"


def test_an_order_sends_the_device_back_to_the_proxy(site: Site) -> None:
    device = site.register()
    new = site.admin.upload(site.model, "1.1.0", b"through the proxy")
    device.beat()
    site.admin.post(
        "/deployments",
        {
            "firmwareId": new["id"],
            "strategy": "Direct",
            "targetDevices": [device.name],
        },
    )
    device.wait_for_order()

    with site.client(headers=dict(device.client.headers)) as client:
        order = client.get(f"/devices/{device.name}/update").json()
        address = order["firmware"]["downloadUrl"]
        image = client.get(urljoin(site.url, address))

    assert address == f"/api/v1/firmware/{new['id']}/download"
    assert image.content == b"through the proxy"


def test_a_revocation_cuts_a_download_through_the_proxy(site: Site) -> None:
    credential = site.authority.issue("cut off")
    device = site.register(credential)
    new = site.admin.upload(site.model, "2.0.0", secrets.token_bytes(SIZE))
    device.beat()
    site.admin.post(
        "/deployments",
        {
            "firmwareId": new["id"],
            "strategy": "Direct",
            "targetDevices": [device.name],
        },
    )
    device.wait_for_order()
    received = at_revocation = 0

    with (
        site.client(credential) as client,
        contextlib.suppress(httpx.TransportError),
        client.stream("GET", f"/firmware/{new['id']}/download") as answer,
    ):
        assert answer.status_code == 200
        for piece in answer.iter_bytes(64 * 1024):
            received += len(piece)
            if not at_revocation and received > PACE:
                site.admin.post(f"/devices/{device.name}/revoke", {}, 200)
                at_revocation = received
            # A client that takes its time: the pace is what is being tried.
            time.sleep(len(piece) / PACE)

    assert at_revocation
    assert received - at_revocation < MOST_AFTER
    assert received < SIZE
