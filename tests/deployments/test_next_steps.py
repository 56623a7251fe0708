"""What to do next, as the documentation and the answers say it."""

import re
from pathlib import Path

from django.conf import settings

from deployments.choices import (
    FINAL_ERRORS,
    IMAGE_FAULTS,
    PATH_ERRORS,
    SERVER_ERRORS,
)
from deployments.next_steps import NEXT_STEPS, NOTHING_TO_DO, OTHERWISE, next_step
from deployments.services.progress import NEUTRAL_CODES
from devices.agent.protocol import ErrorCode


def test_the_documentation_says_the_same() -> None:
    page = (Path(settings.BASE_DIR) / "docs" / "monitoring.md").read_text()
    section = page.split("## What to do next")[1].split("|---|---|")[1]

    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))
    (otherwise,) = re.findall(r"^\| any other \| (.+) \|$", section, re.MULTILINE)

    assert rows == NEXT_STEPS
    assert otherwise == OTHERWISE


def test_every_code_of_the_server_has_a_step_of_its_own_or_needs_none() -> None:
    codes = {
        *SERVER_ERRORS,
        *FINAL_ERRORS,
        *IMAGE_FAULTS,
        *PATH_ERRORS,
        *NEUTRAL_CODES,
    }

    assert codes - NEXT_STEPS.keys() == NOTHING_TO_DO


def test_a_device_that_needs_nothing_is_told_nothing() -> None:
    assert next_step("already_installed") == ""


def test_the_agent_and_the_server_have_the_same_words_for_the_path() -> None:
    of_the_agent = {code.value for code in ErrorCode if code.name.startswith("PATH_")}

    assert of_the_agent == set(PATH_ERRORS)
    assert not of_the_agent & {*FINAL_ERRORS, *IMAGE_FAULTS, *SERVER_ERRORS}
