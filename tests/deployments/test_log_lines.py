"""Each event of a deployment is one line of the server's own log."""

import json
import logging
from typing import Any

import pytest

from deployments.models import Event, LogPosition
from deployments.services.log_lines import write_new_events
from hotswap.common.logs import JSONFormatter
from tests.deployments.world import World

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def quiet_world(transactional_db: None) -> World:
    return World()


def write_all() -> None:
    """As the ticks do: look, wait for whoever was writing then, write."""
    for _ in range(4):
        write_new_events()


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        json.loads(JSONFormatter().format(record))
        for record in caplog.records
        if record.name == "deployments.events"
    ]


def test_a_whole_rollout_is_in_the_log(
    quiet_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = quiet_world
    write_all()
    old, new = world.image("1.0.0"), world.image("2.0.0")
    (bad, _) = world.fleet(2, runs=old)
    deployment = world.launch(new, max_attempts=1)
    bad.poll()
    bad.report("downloading")
    bad.report("failed", error_code="signature_invalid", message="canary words")
    world.update_offered()
    world.tick(1)

    write_all()

    found = lines(caplog)
    events = list(Event.objects.order_by("pk").values_list("event", flat=True))
    assert [line["event"] for line in found] == events
    assert len(events) > 8
    for line in found:
        assert line["deploymentId"] == str(deployment.pk)
        assert line["traceId"] == deployment.trace_id
        assert line["firmwareVersion"] == "2.0.0"
        assert line["strategy"] == "Direct"
    (failed,) = (line for line in found if line["event"] == "device.failed")
    assert failed["message"] == "Device failed"
    assert (failed["level"], failed["deviceId"]) == ("ERROR", bad.name)
    assert failed["errorCode"] == "signature_invalid"
    assert "canary" not in json.dumps(found)


def test_no_event_is_written_twice_or_skipped(
    quiet_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = quiet_world
    write_all()
    world.fleet(1, runs=world.image("1.0.0"))
    world.launch(world.image("2.0.0"))
    write_all()
    count = len(lines(caplog))
    assert count == Event.objects.count()

    write_all()
    assert len(lines(caplog)) == count

    world.update_offered()
    write_all()

    ids = [line["eventId"] for line in lines(caplog)]
    assert ids == list(Event.objects.order_by("pk").values_list("pk", flat=True))
    assert LogPosition.objects.get().written >= ids[-1]
