"""`hotswap deployment ...` against a real server and a simulated fleet."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hotswap.cli.watching import EXIT_CODES
from tests.hotswap.test_cli_commands import (  # noqa: F401 - fixtures
    Run,
    SimulatedFleet,
    admin,
    answer,
    anyone,
    environment,
    model,
    simulated,
    token,
)

pytestmark = pytest.mark.stack

QUICK = {
    "healthCriteria": {"confirmationDuration": "PT2S"},
    "maxAttempts": 1,
    "deviceTimeout": "PT1M",
}


@pytest.fixture
def quick(tmp_path: Path) -> str:
    """A file of fields that have no option."""
    file = tmp_path / "quick.json"
    file.write_text(json.dumps(QUICK))
    return str(file)


# Nobody has uploaded what simulated devices run.
MEANT = ("--acknowledge", "no_previous_image", "--acknowledge", "whole_fleet")


def launch(fleet: SimulatedFleet, *words: str) -> tuple[str, ...]:
    """Return the words of a launch that acknowledges all that it brings about."""
    return (*unread_launch(fleet), *MEANT, *words)


def unread_launch(fleet: SimulatedFleet, *words: str) -> tuple[str, ...]:
    return ("deployment", "launch", f"{fleet.model}:2.0.0", *words)


def test_a_pipeline_launches_and_waits_for_the_end(
    admin: Run,  # noqa: F811
    simulated: SimulatedFleet,  # noqa: F811
    quick: str,
) -> None:
    simulated.start(3, "--seconds", "120")
    group = f"{simulated.model}-lab"
    names = [each["deviceId"] for each in simulated.devices()]
    answer(admin("group", "create", group, "--json"))
    admin("group", "add", group, *names)
    words = launch(
        simulated,
        *("--strategy", "Canary", "--increments", "100", "--wait-duration", "PT0S"),
        *("--initial-percentage", "30", "--group", group, "--file", quick),
        *("--name", f"{group} run"),
    )

    plan = answer(admin(*words, "--preview", "--json"))
    shown = admin(*words, "--preview")
    unconfirmed = admin(*words)
    ended = admin(*words, "--yes", "--wait", "--interval", "0.2", "--json")

    assert [stage["size"] for stage in plan["stages"]] == [1, 2]
    assert "3 of 3 devices eligible, in 2 stages" in shown.stdout
    assert unconfirmed.returncode == 5
    status = answer(ended)
    assert (status["status"], status["progress"]["success"]) == ("Completed", 3)
    assert "Running" in ended.stderr

    listed = answer(admin("deployment", "list", "--device", names[0], "--json"))
    assert [row["id"] for row in listed] == [status["id"]]
    found = answer(admin("deployment", "show", f"{group} run", "--json"))
    assert found["id"] == status["id"]
    again = admin("deployment", "watch", status["id"])
    assert again.returncode == 0
    assert "Completed" in again.stdout
    report = answer(admin("deployment", "report", status["id"], "--json"))
    assert report["healthReport"]["progress"]["success"] == 3
    assert report["rollbacks"]["total"] == 0
    table = admin("deployment", "report", status["id"])
    assert "Stages" in table.stdout


def test_what_fails_ends_with_a_code_of_its_own(
    admin: Run,  # noqa: F811
    simulated: SimulatedFleet,  # noqa: F811
    quick: str,
) -> None:
    simulated.start(1, "--seconds", "120", "--fail-rate", "1")
    (device,) = simulated.devices()

    ended = admin(
        *launch(simulated, "--strategy", "direct", "--file", quick, "--yes"),
        *("--device", device["deviceId"], "--wait", "--interval", "0.2", "--json"),
    )

    # It is ordered back, unless it has shown its former image by itself before.
    status = json.loads(ended.stdout)
    assert status["status"] in ("RolledBack", "Failed"), ended.stderr
    assert ended.returncode == EXIT_CODES[status["status"]]
    table = admin("deployment", "report", status["id"])
    assert "Devices that failed" in table.stdout
    assert device["deviceId"] in table.stdout


def test_a_launch_says_what_it_has_to_acknowledge(
    admin: Run,  # noqa: F811
    simulated: SimulatedFleet,  # noqa: F811
) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    words = unread_launch(
        simulated, "--all", "--name", simulated.model, "--acknowledge", "whole_fleet"
    )
    at = ("--at", f"{later:%Y-%m-%dT%H:%M:%SZ}")
    silent = {"deviceId": f"{simulated.model}-silent", "model": simulated.model}
    simulated.ask("POST", "/devices", json=silent)

    shown = admin(*words, "--preview")
    asked = admin(*words, *at)
    told = admin(*words, *at, "--yes")
    document = json.loads(admin(*words, *at, "--yes", "--json").stderr)
    unknown = admin(*words, *at, "--yes", "--acknowledge", "everything")
    listed = answer(admin("deployment", "list", "--search", simulated.model, "--json"))
    made = answer(
        admin(*words, *at, "--acknowledge", "no_previous_image", "--yes", "--json")
    )

    assert "To acknowledge: no_previous_image." in shown.stdout
    for refused in (asked, told):
        assert refused.returncode == 1
        assert "  no_previous_image: Devices whose present firmware" in refused.stderr
        assert "launch it with --acknowledge no_previous_image" in refused.stderr
        assert "whole_fleet" not in refused.stderr
    assert document["code"] == "acknowledgement_required"
    assert [each["code"] for each in document["errors"]] == ["no_previous_image"]
    assert unknown.returncode == 1
    assert "/acknowledge/1" in unknown.stderr
    assert listed == []
    assert made["acknowledged"] == ["no_previous_image", "whole_fleet"]
    admin("deployment", "cancel", made["id"], "--yes", "--reason", "tried")


def test_a_scheduled_deployment_is_operated(
    admin: Run,  # noqa: F811
    simulated: SimulatedFleet,  # noqa: F811
) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    made = answer(
        admin(
            *launch(simulated, "--all", "--at", f"{later:%Y-%m-%dT%H:%M:%SZ}"),
            *("--yes", "--json"),
        )
    )
    why = ("--reason", "holiday", "--json")

    def act(verb: str, *words: str) -> Any:
        return answer(admin("deployment", verb, made["id"], *words))

    assert made["status"] == "Scheduled"
    assert act("pause", *why)["status"] == "Paused"
    assert act("resume", *why)["status"] == "Scheduled"
    unconfirmed = admin("deployment", "cancel", made["id"], *why)
    assert unconfirmed.returncode == 5
    assert act("cancel", "--yes", *why)["status"] == "Cancelled"
    refused = [
        admin("deployment", "rollback", made["id"], "--yes", *why),
        admin("deployment", "retry", made["id"], *why),
        admin("deployment", "approve-stage", made["id"], "--comment", "x", "--json"),
    ]
    assert [each.returncode for each in refused] == [1, 1, 1]
    assert {json.loads(each.stderr)["code"] for each in refused} == {"wrong_status"}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("launch",), 2, "name the firmware"),
        (("launch", "m:1", "--all", "--region", "EU"), 2, "give one of --device"),
        (("launch", "m:1", "--all", "--increments", "10;20"), 2, "no list of percents"),
        (("launch", "m:1", "--all"), 1, "unknown_firmware"),
        (("launch", "m", "--all"), 1, "MODEL:VERSION"),
        (("show", "no such"), 1, "there is no deployment"),
        (("pause", "no such"), 2, "--reason"),
        (("list", "--status", "Odd"), 1, "Odd"),
    ],
)
def test_what_is_wrong_is_said(
    admin: Run,  # noqa: F811
    words: tuple[str, ...],
    code: int,
    text: str,
) -> None:
    done = admin("deployment", *words)

    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
