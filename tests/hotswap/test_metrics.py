"""What `/metrics` shows, and to whom."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import resolve
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from deployments.protocols.native.fast_path import (
    HEARTBEAT_ROUTE,
    POLL_ROUTE,
    REPORT_ROUTE,
)
from hotswap.common import metrics
from hotswap.monitoring.caching import Cached, cached
from hotswap.monitoring.catalogue import COUNTERS, NAMES
from hotswap.monitoring.tasks import serve_metrics
from tests.deployments.world import World
from tests.live import PROJECT_DIR
from tests.prometheus import find_program

TOKEN = "a-token-for-whoever-scrapes"
SIBLING = """
import os, sys
from hotswap.monitoring.processes import VARIABLE, sibling_pids, share_between_siblings
share_between_siblings()
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
Counter("hits", "hits").inc(int(sys.argv[1]))
registry = CollectorRegistry()
MultiProcessCollector(registry)
lines = generate_latest(registry).decode().splitlines()
(value,) = [line.split()[1] for line in lines if line.startswith("hits_total ")]
print(value, os.environ[VARIABLE], flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    cached.forget()
    yield
    cached.forget()


@pytest.fixture
def world(db: None) -> World:
    return World()


@pytest.fixture
def token(settings: Any) -> str:
    settings.METRICS_TOKEN = TOKEN
    return TOKEN


def scrape(token: str, host: str = "10.1.2.3:8000") -> Any:
    client = Client(headers={"host": host, "authorization": f"Bearer {token}"})
    return client.get("/metrics")


def families(text: str) -> dict[str, Any]:
    return {each.name: each for each in text_string_to_metric_families(text)}


def test_token_of_the_settings_opens_metrics_at_any_host(db: None, token: str) -> None:
    assert scrape(token).status_code == 200


@pytest.mark.parametrize("given", ["", "another-token-of-somebody", TOKEN + "x"])
def test_wrong_token_is_refused(db: None, token: str, given: str) -> None:
    answer = scrape(given)

    assert answer.status_code == 401
    assert TOKEN not in answer.content.decode()


def test_without_a_token_in_the_settings_none_opens(db: None, settings: Any) -> None:
    settings.METRICS_TOKEN = ""

    assert scrape("").status_code == 401


def test_token_opens_nothing_else(db: None, token: str) -> None:
    client = Client(headers={"authorization": f"Bearer {token}"})

    assert client.get("/api/v1/devices").status_code == 401


def test_every_kept_metric_is_shown(world: World, token: str) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(2, old)
    world.launch(new, "Direct")
    world.update_offered()

    text = scrape(token).content.decode()

    shown = families(text)
    for name in NAMES:
        assert name.removesuffix("_total") in shown
    for name in ("hotswap_serving", "hotswap_part_up", "hotswap_disk_bytes"):
        assert name in shown
    (online,) = shown["hotswap_devices_online"].samples
    assert online.labels == {"region": "US-EAST"}
    updated = shown["hotswap_devices_updated"].samples
    assert sum(each.value for each in updated) == 2
    durations = shown["hotswap_device_update_duration_seconds"].samples
    (count,) = [each.value for each in durations if each.name.endswith("_count")]
    buckets = [each.value for each in durations if each.name.endswith("_bucket")]
    assert (count, buckets[-1]) == (2, 2)
    assert buckets == sorted(buckets)
    assert not any(name in text for name in world.devices)


def test_what_has_known_labels_begins_at_zero(db: None, token: str) -> None:
    shown = families(scrape(token).content.decode())

    for name, count in (
        ("hotswap_deployments_active", 25),
        ("hotswap_deployments_paused", 4),
        ("hotswap_device_keys_expiring", 2),
        ("hotswap_device_certificates_expiring", 2),
    ):
        assert [each.value for each in shown[name].samples] == [0] * count

    created = shown["hotswap_deployments_created"].samples
    assert {each.labels["strategy"]: each.value for each in created} == {
        "Direct": 0,
        "Regional": 0,
        "Canary": 0,
        "BlueGreen": 0,
        "Rolling": 0,
    }


def test_promtool_finds_nothing_wrong(world: World, token: str) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(1, old)
    world.launch(new, "Direct")
    world.update_offered()
    promtool = find_program("promtool")
    assert promtool, "no promtool: run `make prometheus`"

    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=scrape(token).content,
        capture_output=True,
        check=False,
    )

    faults = [
        line
        for line in (done.stdout + done.stderr).decode().splitlines()
        if line.startswith("hotswap")
    ]
    assert faults == []


def test_gauges_are_remembered_and_counters_are_not(world: World, token: str) -> None:
    old = world.image("1.0.0")
    world.fleet(1, old)
    scrape(token)

    world.fleet(1, old, prefix="later")
    metrics.write([COUNTERS[0].entry(strategy="Direct")])
    shown = families(scrape(token).content.decode())

    # The world lives in the past: its devices are silent now.
    assert [each.value for each in shown["hotswap_devices_offline"].samples] == [1]
    created = shown["hotswap_deployments_created"].samples
    assert sum(each.value for each in created) == 1


def test_remembered_value_lasts_for_five_seconds() -> None:
    moment = [100.0]
    values = iter(range(9))
    kept = Cached(lambda: moment[0])

    assert kept.get("a", lambda: next(values)) == 0
    moment[0] = 104.9
    assert kept.get("a", lambda: next(values)) == 0
    moment[0] = 105.0
    assert kept.get("a", lambda: next(values)) == 1


def test_what_takes_long_is_remembered_for_longer() -> None:
    moment = [100.0]
    values = iter(range(9))
    kept = Cached(lambda: moment[0])

    def read() -> int:
        moment[0] += 2
        return next(values)

    assert kept.get("a", read) == 0
    moment[0] = 102 + 39.9
    assert kept.get("a", read) == 0
    moment[0] = 102 + 40
    assert kept.get("a", read) == 1


def test_requests_are_counted_by_their_pattern(db: None) -> None:
    labels = {"method": "GET", "route": "api/v1/devices/<str:device_id>"}
    counted = {**labels, "status": "401"}
    name = "hotswap_http_requests_total"
    before = REGISTRY.get_sample_value(name, counted) or 0

    for device in ("one", "two"):
        Client().get(f"/api/v1/devices/{device}")
    Client().get("/health")

    assert REGISTRY.get_sample_value(name, counted) == before + 2
    assert REGISTRY.get_sample_value(
        "hotswap_http_request_duration_seconds_count", labels
    )
    assert not REGISTRY.get_sample_value(
        name, {"method": "GET", "route": "health", "status": "200"}
    )


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/v1/devices/d/update", POLL_ROUTE),
        ("/api/v1/devices/d/health", HEARTBEAT_ROUTE),
        (
            "/api/v1/devices/d/updates/00000000-0000-4000-8000-000000000000/reports",
            REPORT_ROUTE,
        ),
    ],
)
def test_fast_path_counts_as_the_long_way_does(path: str, route: str) -> None:
    assert resolve(path).route == route


def test_processes_of_one_server_add_up() -> None:
    """The second sees what the first has counted, also once the first is gone."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "PROMETHEUS_MULTIPROC_DIR"
    }

    def sibling(number: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SIBLING, str(number)],
            cwd=PROJECT_DIR,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def said(process: subprocess.Popen[str]) -> tuple[float, str]:
        assert process.stdout is not None
        value, folder = process.stdout.readline().split()
        return float(value), folder

    first = sibling(3)
    seen = [said(first)]
    second = sibling(4)
    seen.append(said(second))
    first.communicate("")
    second.communicate("")
    last = sibling(5)
    seen.append(said(last))
    last.communicate("")

    assert [value for value, _ in seen] == [3, 7, 12]
    assert len({folder for _, folder in seen}) == 1


def test_worker_shows_its_own_at_an_address(token: str) -> None:
    server = serve_metrics("127.0.0.1:0")
    assert server is not None
    url = f"http://127.0.0.1:{server.server_port}/metrics"
    try:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url)
        asked = urllib.request.Request(
            url, headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(asked) as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()

    assert refused.value.code == 401
    assert "hotswap_task_duration_seconds" in text


def test_without_an_address_a_worker_shows_nothing() -> None:
    assert serve_metrics("") is None


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_is_in_the_documents(name: str) -> None:
    page = (PROJECT_DIR / "docs" / "operate" / "observability.md").read_text()

    assert f"`{name}`" in page
