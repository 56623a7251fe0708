"""A real agent from the factory: a bad update, and the way back without a download."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployments.agents import (
    AgentDevice,
    StartAgent,
    direct,
    new_model,
    program,
    running_agents,
)
from tests.deployments.live import LiveAdmin
from tests.live import LiveStack
from tests.waiting import wait_until

pytestmark = pytest.mark.stack


@pytest.fixture
def agents() -> Iterator[StartAgent]:
    with running_agents() as start:
        yield start


def test_agent_goes_back_to_a_factory_image_that_the_server_never_had(
    live_stack: LiveStack, agents: StartAgent, tmp_path: Path
) -> None:
    admin = LiveAdmin(live_stack)
    model, factory = new_model(admin), program("1.0.0", 20_000)
    sick = program("2.0.0", 30_000).replace(b'"errorRate": 0.0', b'"errorRate": 0.9')
    bad = admin.upload(model, "2.0.0", sick)
    device = AgentDevice(tmp_path / "device", admin, model, factory)
    agents(device)

    deployment = direct(admin, bad, device.name)

    def outcome() -> str:
        (row,) = admin.get(f"/deployments/{deployment}/devices")["results"]
        return str(row["status"])

    wait_until(lambda: outcome() == "rolled_back", what="the proof of the return")
    assert device.running_image() == factory
    log = (device.folder / "agent.log").read_text()
    # That of the bad image was the only one.
    assert log.count('"message": "downloading"') == 1
    assert log.count("image is already in a slot") == 1
    said = [
        each["message"]
        for each in admin.get(f"/deployments/{deployment}/logs")["results"]
        if each["event"] == "device.ordered_back"
    ]
    assert len(said) == 1
    assert "1.0.0 in its other slot" in said[0]
    listed = admin.get(f"/firmware?model={model}")["results"]
    assert [each["version"] for each in listed] == ["2.0.0"]
