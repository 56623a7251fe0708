"""The page of a device: its timeline, its chart, and how it is connected."""

import re
import subprocess
import tomllib
from datetime import timedelta
from pathlib import Path

from django.utils import timezone

from devices.models import Device
from devices.services.registry import change_device, revoke_device
from firmware.models import SigningKey
from health.console.device import chart_of
from health.models import DeviceState, Reading
from hotswap.common.console.panels import newest_lines
from hotswap.common.models import AuditEvent
from tests.console.conftest import ConsoleClient, Scene
from tests.firmware.factories import DeviceModelFactory

PAGE = "/admin/devices/device/{}/change/"
PIECE = "/admin/devices/device/{}/timeline/"


def test_the_timeline_tells_what_people_the_server_and_the_device_did(
    admin_client: ConsoleClient, viewer_client: ConsoleClient, scene: Scene
) -> None:
    person = scene.world.admin
    change_device(
        actor=person, device_id=scene.device.device_id, changes={"enabled": False}
    )
    revoke_device(actor=person, device_id=scene.device.device_id, reason="stolen")

    shown = admin_client.get(PAGE.format(scene.device.pk)).content.decode()
    timeline = shown[shown.index('id="hs-timeline"') :]
    events = re.findall(r'hs-log-event" title="([\w.-]+)">', timeline)

    assert events.index("device.revoked") < events.index("device.changed")
    assert "device.registered" in events
    line = rf"reason: stolen; changes: [^<]+ by {person.username}"
    assert re.search(line, timeline)
    hidden = viewer_client.get(PAGE.format(scene.device.pk)).content.decode()
    assert "reason: stolen" in hidden
    assert person.username not in hidden[hidden.index('id="hs-timeline"') :]


def test_the_timeline_is_read_part_by_part_and_loses_nothing(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    begin = timezone.now() - timedelta(days=3)
    for number in range(130):
        # Several of the same moment, so that a page could end among them.
        AuditEvent.objects.create(
            at=begin + timedelta(minutes=number // 4),
            actor_kind=AuditEvent.ActorKind.SERVER,
            verb=f"test.number-{number}",
            object_kind="device",
            object_id=str(scene.device.pk),
        )
    url, seen = PAGE.format(scene.device.pk), []

    while url:
        shown = viewer_client.get(url).content.decode()
        seen += re.findall(r"test\.number-(\d+)", shown)
        older = re.search(r'hx-get="([^"]*/timeline/[^"]*)"', shown)
        url = older[1].replace("&amp;", "&") if older else ""

    assert sorted(map(int, seen)) == list(range(130))


def test_a_part_of_nonsense_is_the_newest(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    for until in ("yesterday", "2026-13-40T00:00:00Z", "2026-01-01"):
        answer = viewer_client.get(PIECE.format(scene.device.pk), {"until": until})
        assert answer.status_code == 200
        assert "device.registered" in answer.content.decode()


def test_lines_of_one_moment_stay_together(scene: Scene) -> None:
    later = timezone.now() + timedelta(days=1)
    for verb in ("test.one", "test.two"):
        AuditEvent.objects.create(
            at=later,
            actor_kind=AuditEvent.ActorKind.SERVER,
            verb=verb,
            object_kind="device",
            object_id=str(scene.device.pk),
        )

    lines, older = newest_lines(scene.device, 1)

    assert {line.event for line in lines} == {"test.one", "test.two"}
    assert older is not None
    assert older < lines[0].at
    rest, _ = newest_lines(scene.device, 50, older)
    whole, _ = newest_lines(scene.device, 50)
    assert len(lines) + len(rest) == len(whole)


def test_the_span_of_the_chart_fits_what_there_is(scene: Scene) -> None:
    now = timezone.now()

    def chosen(known: timedelta, silent: timedelta) -> str:
        Device.objects.filter(pk=scene.device.pk).update(created_at=now - known)
        DeviceState.objects.filter(device=scene.device).update(
            last_heartbeat_at=now - silent
        )
        device = Device.objects.select_related("state").get(pk=scene.device.pk)
        return str(chart_of(device, "")["span"])

    assert chosen(timedelta(minutes=5), timedelta()) == "1h"
    # It has come back: of the day before there is nothing.
    assert chosen(timedelta(days=90), timedelta()) == "1h"
    Reading.objects.create(
        device_id=scene.device.pk,
        at=now - timedelta(hours=3),
        firmware_version="1.0.0",
        is_first_of_boot=False,
    )
    assert chosen(timedelta(hours=5), timedelta()) == "24h"
    assert chosen(timedelta(days=90), timedelta()) == "24h"
    assert chosen(timedelta(days=90), timedelta(days=3)) == "7d"
    assert chosen(timedelta(days=90), timedelta(days=80)) == "30d"


def test_one_command_writes_all_that_the_agent_needs(
    operator_client: ConsoleClient, scene: Scene, tmp_path: Path
) -> None:
    DeviceModelFactory.create(name="sensor-9")
    given = {
        "deviceId": "s:1",
        "model": "sensor-9",
        "region": "US-EAST",
        "tags": "site: plant-7",
    }

    answer = operator_client.post("/admin/devices/device/register/", given)

    command = answer.context["connect_command"]
    script = command.removesuffix("hotswap-agent --config agent.toml")
    subprocess.run(["/bin/sh", "-ec", script], cwd=tmp_path, check=True)
    (folder,) = tmp_path.iterdir()
    config = tomllib.loads((folder / "agent.toml").read_text())
    assert config["device_id"] == "s:1"
    assert config["server"] == "http://testserver"
    assert (folder / config["api_key_file"]).read_text().startswith("hsd_")
    key = SigningKey.objects.get()
    (trusted,) = config["trusted_keys"]
    assert (folder / trusted).read_text().strip() == key.public_key.strip()
    assert (folder / "api-key").stat().st_mode & 0o077 == 0
    assert Device.objects.get(device_id="s:1").tags == {"site": "plant-7"}
