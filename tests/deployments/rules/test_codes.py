"""The table of outcome codes, and that everything else follows it."""

import re
from pathlib import Path

import pytest
from django.conf import settings

from deployments.choices import Level
from deployments.models import Target
from deployments.rules.codes import (
    BREACHES,
    CODES,
    FETCH_ERRORS,
    FINAL_CODES,
    IMAGE_FAULTS,
    NEUTRAL_CODES,
    NO_REASON,
    NO_RETURN_CODES,
    OPERATOR_CODES,
    OTHERWISE,
    SERVER_CODES,
    CodeClass,
    Issuer,
    OutcomeCode,
    message_of,
    next_step,
    reported_code,
)
from devices.agent.protocol import ErrorCode
from health.triggers import BREACHES as BREACHES_OF_HEALTH
from tests.deployments.world import World

ON_AN_ORDER = {
    code.name: code for code in CODES.values() if code.issuers != Issuer.LAUNCH
}


@pytest.mark.parametrize("code", CODES.values(), ids=CODES.keys())
def test_a_code_has_class_message_and_level(code: OutcomeCode) -> None:
    assert code.classes
    assert code.message
    # Statements hold it as it is.
    assert not set("'%{}") & set(code.message)
    assert code.level in Level.values
    Target._meta.get_field("error_code").run_validators(code.name)


@pytest.mark.parametrize("code", ON_AN_ORDER.values(), ids=ON_AN_ORDER.keys())
def test_a_code_says_what_to_do_next_unless_nothing_is_wrong(code: OutcomeCode) -> None:
    is_fine = code.name in {"already_installed", "moved_on", "erased"} | OPERATOR_CODES

    assert bool(code.next_step) is not is_fine


def test_the_documentation_has_the_same_next_steps() -> None:
    page = (Path(settings.BASE_DIR) / "docs" / "monitoring.md").read_text()
    section = page.split("## What to do next")[1].split("|---|---|")[1]

    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))
    (otherwise,) = re.findall(r"^\| any other \| (.+) \|$", section, re.MULTILINE)

    assert rows == {
        code.name: code.next_step for code in CODES.values() if code.next_step
    }
    assert otherwise == OTHERWISE


def test_the_agent_and_the_table_have_the_same_codes_of_devices() -> None:
    of_devices = {code.name for code in CODES.values() if Issuer.DEVICE & code.issuers}

    assert of_devices == {code.value for code in ErrorCode}


def test_every_trigger_of_health_is_a_breach() -> None:
    assert {name for name, _ in BREACHES_OF_HEALTH} <= BREACHES


def test_classes_that_contradict_each_other_do_not_meet() -> None:
    assert not BREACHES & FINAL_CODES
    assert not FETCH_ERRORS & (IMAGE_FAULTS | FINAL_CODES | BREACHES)
    assert not NO_RETURN_CODES & NEUTRAL_CODES
    retried = {code.name for code in CODES.values() if CodeClass.RETRIED & code.classes}
    assert not retried & (FINAL_CODES | BREACHES)


def test_every_breach_counts_towards_the_quarantine_of_the_image() -> None:
    assert BREACHES <= IMAGE_FAULTS


@pytest.mark.parametrize("code", sorted(SERVER_CODES))
def test_a_device_cannot_pass_a_verdict_of_the_server(code: str) -> None:
    assert reported_code(code) == f"device_{code}"
    assert reported_code(code) not in SERVER_CODES


@pytest.mark.parametrize(
    "code", ["wrong_model", "download_failed", "a_code_of_its_own"]
)
def test_a_code_of_devices_is_kept_as_it_is_reported(code: str) -> None:
    assert reported_code(code) == code


def test_a_failure_without_a_code_has_one_all_the_same() -> None:
    assert reported_code("") == "failed"


def test_an_outcome_in_which_nothing_is_wrong_has_no_next_step() -> None:
    assert next_step("already_installed") == ""
    assert next_step("") == ""


def test_an_unknown_code_has_the_step_of_all_others_and_no_meaning() -> None:
    assert next_step("battery_low", "`copy` it").endswith(
        "then `copy` it or deploy a corrected image."
    )
    assert message_of("battery_low") == NO_REASON


def test_security_version_is_a_word_of_the_server_alone(world: World) -> None:
    """It says what the server has seen: a device that says so is not left out."""
    old, new = world.image("1.0.0"), world.image("1.1.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, max_attempts=1)
    device.poll()

    device.report("failed", error_code="security_version", message="mine is higher")

    assert device.target(deployment).error_code == "device_security_version"


def test_a_known_code_without_a_message_says_what_it_means(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("1.1.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, max_attempts=1)
    device.poll()

    device.report("failed", error_code="install_failed")

    assert device.target(deployment).message == message_of("install_failed")
