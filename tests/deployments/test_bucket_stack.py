"""A whole stack whose images lie in two buckets, and an agent that is led to them."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.deployments.agents import (
    AgentDevice,
    direct,
    new_model,
    program,
    running_agents,
)
from tests.deployments.live import LiveAdmin
from tests.live import LiveStack, running_stack
from tests.s3 import S3Server, TrippingProxy
from tests.waiting import wait_until

pytestmark = pytest.mark.stack
SIZE = 2_000_000


@dataclass(frozen=True, slots=True)
class BucketStack:
    """A stack and its two stores; devices reach each through a proxy of its own."""

    stack: LiveStack
    main: S3Server
    spare: S3Server
    main_proxy: TrippingProxy
    spare_proxy: TrippingProxy


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketStack]:
    """A stack on two S3 servers that are both down while it starts."""
    folder = tmp_path_factory.mktemp("buckets")
    main, spare = S3Server(folder / "main"), S3Server(folder / "spare")
    for server in (main, spare):
        server.folder.mkdir()
        server.make_bucket("images")
    proxies = TrippingProxy(main.port), TrippingProxy(spare.port)
    environment = {
        "HOTSWAP_S3_BUCKET": "images",
        "HOTSWAP_S3_ENDPOINT": main.endpoint,
        "HOTSWAP_S3_PUBLIC_ENDPOINT": proxies[0].endpoint,
        "HOTSWAP_S3_REGION": "us-east-1",
        "HOTSWAP_S3_ACCESS_KEY": main.access_key,
        "HOTSWAP_S3_SECRET_KEY": main.secret_key,
        "HOTSWAP_S3_ENCRYPTION": "AES256",
        "HOTSWAP_S3_BUCKETS": json.dumps(
            {
                "spare": {
                    "bucket": "images",
                    "endpoint": spare.endpoint,
                    "publicEndpoint": proxies[1].endpoint,
                    "accessKey": spare.access_key,
                    "secretKey": spare.secret_key,
                }
            }
        ),
    }
    try:
        with running_stack(folder / "data", environment=environment) as stack:
            yield BucketStack(stack, main, spare, *proxies)
    finally:
        for server in (main, spare):
            server.kill()
        for proxy in proxies:
            proxy.close()


def test_a_stack_starts_without_its_stores_and_works_when_they_come(
    running: BucketStack,
) -> None:
    admin = LiveAdmin(running.stack)
    model = new_model(admin)
    content = secrets.token_bytes(50_000)

    refused = admin.client.post(
        "/firmware",
        files={"file": ("image", content)},
        data={"model": model, "version": "1.0.0"},
    )
    running.main.start()
    running.spare.start()
    old = admin.upload(model, "1.0.0", content)
    new = admin.upload(model, "2.0.0", content + b"new")
    (device,) = admin.register(model, 1, old)
    device.beat()
    direct(admin, new, device.name)
    wait_until(lambda: device.poll() or device.order, what="the order")
    led = device.client.get(f"/firmware/{new['id']}/download")

    assert refused.status_code == 503
    assert refused.json()["code"] == "store_unavailable"
    assert led.status_code == 307
    assert led.headers["location"].startswith(running.main_proxy.endpoint)
    assert httpx.get(led.headers["location"]).content == content + b"new"


def test_an_agent_goes_on_at_another_bucket_when_its_own_is_killed(
    running: BucketStack, tmp_path: Path
) -> None:
    running.main.start()
    running.spare.start()
    admin = LiveAdmin(running.stack)
    model = new_model(admin)
    old, new = program("1.0.0", 20_000), program("2.0.0", SIZE)
    admin.upload(model, "1.0.0", old)
    firmware = admin.upload(model, "2.0.0", new)
    device = AgentDevice(tmp_path / "device", admin, model, old, patience_seconds=120)
    wait_until(
        lambda: (
            new
            in [
                path.read_bytes()
                for path in (running.spare.folder / "images").glob("*.bin")
            ]
        ),
        what="the image is at the spare bucket, too",
    )
    before = running.spare_proxy.passed_bytes
    running.main_proxy.arm(SIZE // 2, running.main.kill)

    with running_agents() as start:
        start(device)
        deployment = direct(admin, firmware, device.name)
        wait_until(
            lambda: (
                admin.get(f"/deployments/{deployment}/status")["status"] == "Completed"
            ),
            seconds=120,
            what="the agent has proved itself",
        )

    assert running.main_proxy.has_tripped
    assert device.running_image() == new
    # Only what was missing.
    assert 0 < running.spare_proxy.passed_bytes - before < SIZE * 3 // 4
