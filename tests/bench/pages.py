"""Pages of the console, each as a person who is logged in gets it."""

import re
import time
from importlib import import_module

import httpx
from django.conf import settings
from django.contrib import admin
from django.db import connection

from deployments.models import Deployment
from devices.models import Device
from firmware.models import Firmware
from hotswap.common.console.pages.base import ConsoleAdmin
from tests.bench.ground import Ground, median, wait_for
from tests.bench.scale import device_name
from tests.bench.table import Line, at_most
from tests.live import ADMIN_USERNAME

DEPLOYMENTS = 10_000
RUNS = 5
LIMIT_MS = 300
LIMIT_BYTES = 150_000
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
# Copies of one that is over, each with its stages, a minute apart.
COPY = (
    """
    INSERT INTO deployments_deployment
    SELECT (jsonb_populate_record(d, jsonb_build_object(
        'id', md5('bench deployment ' || n)::uuid, 'name', 'bench ' || n,
        'created_at', d.created_at - n * interval '1 minute'))).*
    FROM deployments_deployment d, generate_series(1, %(number)s::int) n
    WHERE d.id = %(source)s
    """,
    """
    INSERT INTO deployments_stage
    SELECT (jsonb_populate_record(s, jsonb_build_object(
        'id', nextval(pg_get_serial_sequence('deployments_stage', 'id')),
        'deployment_id', md5('bench deployment ' || n)::uuid))).*
    FROM deployments_stage s, generate_series(1, %(number)s::int) n
    WHERE s.deployment_id = %(source)s
    """,
)


def console(ground: Ground) -> list[Line]:
    """Read every list and the main pages, one after the other."""
    device = Device.objects.get(device_id=device_name(ground.scale.devices // 2))
    with ground.launched("CROWD", "Rolling") as created:
        pass
    wait_for(
        lambda: ground.status(created["id"]) == "Cancelled",
        seconds=60,
        what="it is over",
    )
    ended = Deployment.objects.get(pk=created["id"])
    with connection.cursor() as cursor:
        for statement in COPY:
            cursor.execute(statement, {"number": DEPLOYMENTS, "source": ended.pk})
    ground.settle()
    # One that waits, for the list of approvals.
    ground.upload(next(ground.versions), b"not approved yet")
    part = device.device_id[3:-2]
    paths = {
        "overview": "",
        **_lists(),
        "devices of a region": "devices/device/?region=CROWD",
        "devices of a version": "devices/device/?version=1.0.0",
        "devices with a part of a name": f"devices/device/?q={part}",
        "devices with two letters": "devices/device/?q=zz",
        "the last devices": "devices/device/?o=-0",
        "a device": f"devices/device/{device.pk}/change/",
        "a deployment": f"deployments/deployment/{ended.pk}/change/",
        "launch": "deployments/deployment/launch/",
        "an image": f"firmware/firmware/{Firmware.objects.latest('created_at').pk}"
        "/change/",
        "search": f"search/?s={device.device_id}",
        "search for a part of a name": f"search/?s={part}",
        "bell": "bell/",
        "system": "system/",
    }
    times: dict[str, float] = {}
    sizes: dict[str, int] = {}
    with httpx.Client(
        base_url=f"{ground.stack.url}/admin/",
        headers={"Accept-Encoding": "gzip"},
        timeout=60,
    ) as client:
        _log_in(client, ground.password)
        for name, path in paths.items():
            seconds = []
            for _ in range(RUNS + 1):
                started = time.perf_counter()
                with client.stream("GET", path) as answer:
                    answer.raise_for_status()
                    size = sum(len(piece) for piece in answer.iter_raw())
                seconds.append(time.perf_counter() - started)
            # The first fills what is kept for some seconds.
            times[name], sizes[name] = median(seconds[1:]) * 1000, size
    slowest, largest = (
        max(times, key=times.__getitem__),
        max(sizes, key=sizes.__getitem__),
    )
    number = Deployment.objects.count()
    workload = (
        f"{len(paths)} pages for an Admin, each {RUNS} times, with "
        f"{ground.scale.devices:,} devices and {number:,} deployments"
    )
    return [
        at_most(
            "page of the console, the slowest",
            times[slowest],
            LIMIT_MS,
            f"{workload}; medians over HTTP",
            unit="ms",
            more=", ".join(f"{name} {found:.0f}" for name, found in times.items()),
        ),
        at_most(
            "page of the console, the largest",
            sizes[largest] / 1000,
            LIMIT_BYTES / 1000,
            f"{workload}; compressed",
            unit="kB",
            more=f"it is that of {largest}",
        ),
    ]


def _lists() -> dict[str, str]:
    """Return the address of every list, by its title."""
    # They are registered with the addresses.
    import_module(settings.ROOT_URLCONF)
    return {
        f"list of {page.title}": page.list_url().removeprefix("/admin/")
        for page in admin.site._registry.values()
        if isinstance(page, ConsoleAdmin)
    }


def _log_in(client: httpx.Client, password: str) -> None:
    form = client.get("login/")
    found = TOKEN.search(form.text)
    assert found
    answer = client.post(
        "login/",
        data={
            "username": ADMIN_USERNAME,
            "password": password,
            "csrfmiddlewaretoken": found[1],
        },
        headers={"Referer": str(form.url)},
    )
    if answer.status_code != httpx.codes.FOUND:
        raise RuntimeError(f"the login was answered by {answer.status_code}")
