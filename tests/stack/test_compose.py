"""The containers: the file is well formed, and runs what the stack runs."""

import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from opentelemetry.sdk import environment_variables

from hotswap.stack import Stack
from tests.live import PROJECT_DIR

# The part of the Compose Specification that the file uses; nothing else may appear.
TEXTS = {"type": "array", "items": {"type": "string"}}
DURATION = {"type": "string", "pattern": r"^(\d+(h|m|s|ms))+$"}
NAME = "^[a-zA-Z0-9._-]+$"
SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "anyOf": [{"required": ["image"]}, {"required": ["build"]}],
    "properties": {
        "build": {"type": "string"},
        "image": {"type": "string"},
        "command": TEXTS,
        "entrypoint": TEXTS,
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "environment": {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "null"]},
        },
        "ports": TEXTS,
        "volumes": TEXTS,
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "required": ["test"],
            "properties": {
                "test": {**TEXTS, "minItems": 2},
                "interval": DURATION,
                "timeout": DURATION,
                "start_period": DURATION,
                "retries": {"type": "integer", "minimum": 1},
            },
        },
        "depends_on": {
            "type": "object",
            "patternProperties": {
                NAME: {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["condition"],
                    "properties": {
                        "condition": {
                            "enum": [
                                "service_started",
                                "service_healthy",
                                "service_completed_successfully",
                            ]
                        }
                    },
                }
            },
        },
    },
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {"type": "object", "patternProperties": {NAME: SERVICE}},
        "volumes": {
            "type": "object",
            "patternProperties": {NAME: {"type": ["object", "null"]}},
        },
    },
}
OWN = ("prepare", "web", "worker", "beat")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    text = (PROJECT_DIR / "docker-compose.yml").read_text()
    return dict(yaml.safe_load(text))


def read_variables() -> set[str]:
    """Return the names that the settings, the logs and OpenTelemetry read."""
    files = [*(PROJECT_DIR / "hotswap" / "settings").glob("*.py")]
    files.append(PROJECT_DIR / "hotswap" / "common" / "logs.py")
    files.append(PROJECT_DIR / "hotswap" / "telemetry.py")
    text = "".join(path.read_text() for path in files)
    own = re.findall(r"\"((?:HOTSWAP|OTEL)_[A-Z0-9_]+)\"", text)
    return set(own) | set(vars(environment_variables))


def test_the_file_keeps_to_the_compose_specification(compose):
    jsonschema.validate(compose, SCHEMA)


def test_everything_that_is_referred_to_exists(compose):
    for name, service in compose["services"].items():
        for needed in service.get("depends_on", {}):
            assert needed in compose["services"], name
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"], name


def test_a_service_that_must_be_healthy_has_a_check(compose):
    for service in compose["services"].values():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in compose["services"][needed]


@pytest.mark.parametrize("name", OWN)
def test_the_variables_of_our_services_are_read(compose, name):
    given = set(compose["services"][name]["environment"])
    by_the_first_step = {"HOTSWAP_ADMIN_USERNAME", "HOTSWAP_ADMIN_PASSWORD"}

    assert given - by_the_first_step <= read_variables()


def test_no_secret_has_a_default(compose):
    text = (PROJECT_DIR / "docker-compose.yml").read_text()

    for name in re.findall(r"\$\{(\w*(?:PASSWORD|SECRET)\w*):-", text):
        pytest.fail(f"{name} has a default")


@pytest.mark.parametrize("name", OWN)
def test_containers_run_the_commands_of_the_stack(compose, name, tmp_path):
    stack = Stack(data_dir=tmp_path)
    stack.folder.create()
    programs = {program.name: program for program in stack._programs()}
    # The container works in the folder of the program.
    here = f"{PROJECT_DIR}/"
    in_stack = [word.removeprefix(here) for word in programs[name].command[1:]]
    in_container = compose["services"][name]["command"]

    assert in_container[0] == "python"
    # A container is reached from outside, and may have more processes.
    differing = {"127.0.0.1", "0.0.0.0", "1", "2", "--respawn-failed-workers"}
    assert [word for word in in_container[1:] if word not in differing] == [
        word for word in in_stack if word not in differing
    ], shlex.join(in_container)


def test_the_image_installs_what_the_lock_names():
    lines = (PROJECT_DIR / "Dockerfile").read_text().splitlines()

    assert any("--require-hashes -r requirements.lock" in line for line in lines)
    assert any(line.startswith("USER ") and "root" not in line for line in lines)
    ignored = (PROJECT_DIR / ".dockerignore").read_text().split()
    assert {".git", ".venv", ".hotswap*"} <= set(ignored)
    assert Path(PROJECT_DIR / "requirements.lock").exists()
