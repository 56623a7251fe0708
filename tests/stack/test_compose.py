"""The containers: the file is well formed, and runs what the stack runs."""

import json
import os
import re
import shlex
import subprocess
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
AMOUNT = {
    "type": "string",
    "pattern": r"^(\d+(\.\d+)?[MG]?|\$\{\w+:-\d+(\.\d+)?[MG]?\})$",
}
SECRETS = {
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "additionalProperties": False,
                "required": ["source", "target"],
                "properties": {
                    "source": {"type": "string"},
                    "target": {"type": "string"},
                },
            },
        ]
    },
}
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
        "init": {"type": "boolean"},
        "read_only": {"type": "boolean"},
        "cap_drop": TEXTS,
        "cap_add": TEXTS,
        "security_opt": TEXTS,
        "tmpfs": TEXTS,
        "user": {"type": "string", "pattern": r"^\d+:\d+$"},
        "shm_size": {"type": "string"},
        "network_mode": {"enum": ["host"]},
        "profiles": TEXTS,
        "secrets": SECRETS,
        "logging": {
            "type": "object",
            "required": ["driver", "options"],
            "properties": {
                "driver": {"enum": ["json-file", "local"]},
                "options": {
                    "type": "object",
                    "required": ["max-size", "max-file"],
                    "additionalProperties": {"type": "string"},
                },
            },
        },
        "deploy": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "replicas": {"type": "integer", "minimum": 1},
                "resources": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["limits"],
                    "properties": {
                        "limits": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["cpus", "memory"],
                            "properties": {"cpus": AMOUNT, "memory": AMOUNT},
                        }
                    },
                },
            },
        },
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
        "secrets": {
            "type": "object",
            "patternProperties": {
                NAME: {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["file"],
                    "properties": {"file": {"type": "string"}},
                }
            },
        },
    },
}
EXACT_TAG = re.compile(r":v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)*$")
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
            source = volume.split(":")[0]
            if source.startswith("./deploy/"):
                assert (PROJECT_DIR / source).exists(), source
            elif not source.startswith("${"):
                assert source in compose["volumes"], name
        for secret in service.get("secrets", []):
            source = secret if isinstance(secret, str) else secret["source"]
            assert source in compose["secrets"], name


def test_every_service_that_stays_is_kept_within_bounds(compose):
    for name, service in compose["services"].items():
        if service.get("restart") != "unless-stopped":
            continue
        assert "logging" in service, name
        assert "limits" in service["deploy"]["resources"], name
        image = service["image"]
        assert image.startswith("hotswap:") or EXACT_TAG.search(image), image


def test_our_services_can_write_nothing_and_do_nothing_of_root(compose):
    for name in (*OWN, "demo"):
        service = compose["services"][name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_the_script_makes_every_secret_and_keeps_it(compose, tmp_path):
    folder = tmp_path / "secrets"
    for _ in range(2):
        done = subprocess.run(
            ["sh", PROJECT_DIR / "deploy" / "make-secrets.sh", folder],
            env={**os.environ, "HOTSWAP_ALLOWED_HOSTS": "updates.example.com"},
            capture_output=True,
            text=True,
            check=True,
        )

    assert "made" not in done.stdout
    for name, secret in compose["secrets"].items():
        assert secret["file"] == f"./secrets/{name}"
        assert len((folder / name).read_text()) >= 20, name
    assert folder.stat().st_mode & 0o777 == 0o700
    for file, user, held_in in (
        ("database_url", "hotswap_app", "database_password"),
        ("database_owner_url", "hotswap", "postgres_password"),
    ):
        password = (folder / held_in).read_text()
        assert f"//{user}:{password}@postgres" in (folder / file).read_text()
    held = (folder / "proxy_secret").read_text()
    assert f'"{held}"' in (folder / "proxy" / "secret.conf").read_text()


def test_a_service_that_must_be_healthy_has_a_check(compose):
    for service in compose["services"].values():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in compose["services"][needed]


@pytest.mark.parametrize("name", OWN)
def test_the_variables_of_our_services_are_read(compose, name):
    environment = compose["services"][name]["environment"]
    given = {each.removesuffix("_FILE") for each in environment}
    by_the_first_step = {"HOTSWAP_ADMIN_USERNAME", "HOTSWAP_ADMIN_PASSWORD"}

    assert given - by_the_first_step <= read_variables()


def test_no_secret_has_a_default(compose):
    text = (PROJECT_DIR / "docker-compose.yml").read_text()

    for name in re.findall(r"\$\{(\w*(?:PASSWORD|SECRET)\w*):-", text):
        pytest.fail(f"{name} has a default")


def test_secrets_are_in_no_environment_but_that_of_a_server_that_reads_no_file(compose):
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            is_secret = re.search(r"(PASSWORD|SECRET|TOKEN|_URL)", variable)
            is_file = variable.endswith("_FILE")
            # S3 servers know no files, PUBLIC_URL is none, EMAIL_URL has a file too.
            is_known = "S3" in variable or variable.startswith("ROOT_")
            if is_secret and not is_file and not is_known and value is not None:
                pytest.fail(f"{name}: {variable}")


def test_the_owner_of_the_tables_is_known_to_the_first_step_alone(compose):
    knowing = {
        name
        for name, service in compose["services"].items()
        if "database_owner_url" in service.get("secrets", [])
        or "HOTSWAP_DATABASE_OWNER_URL_FILE" in service.get("environment", {})
    }

    assert knowing == {"prepare"}


@pytest.mark.parametrize("name", OWN)
def test_containers_run_the_commands_of_the_stack(compose, name, tmp_path):
    stack = Stack(data_dir=tmp_path)
    stack.folder.create()
    programs = {program.name: program for program in stack._programs()}
    # The container works in the folder of the program.
    here = f"{PROJECT_DIR}/"
    in_stack = [word.removeprefix(here) for word in programs[name].command[1:]]
    in_container = compose["services"][name]["command"]
    if name != "prepare":
        guard, in_container = in_container[:5], in_container[6:]
        assert guard[:4] == ["python", "-m", "hotswap.stack.guard", "--health"]

    assert in_container[0] == "python"
    # A container is reached from outside, and may have more processes.
    differing = {"127.0.0.1", "0.0.0.0", "1", "2", "--respawn-failed-workers"}
    assert [word for word in in_container[1:] if word not in differing] == [
        word for word in in_stack if word not in differing
    ], shlex.join(in_container)


def test_the_image_installs_what_the_lock_names_and_runs_as_nobody_special():
    text = (PROJECT_DIR / "Dockerfile").read_text()
    build, image = text.rsplit("\nFROM ", 1)

    assert "--require-hashes -r requirements.lock" in build
    assert re.search(r"^USER \d+:\d+$", image, re.MULTILINE)
    # Nothing is installed, and no tool to build with is, in what is shipped.
    assert not re.search(r"\b(pip|apt-get|curl|wget)\b", image)
    for line in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert EXACT_TAG.search(line), line
    assert {"HEALTHCHECK", "LABEL", "VOLUME"} <= set(
        re.findall(r"^([A-Z]+) ", image, re.MULTILINE)
    )
    ignored = (PROJECT_DIR / ".dockerignore").read_text().split()
    assert {".git", ".venv", ".hotswap*", ".env", "secrets"} <= set(ignored)
    assert Path(PROJECT_DIR / "requirements.lock").exists()


def test_the_image_alone_is_a_web_server(compose):
    text = (PROJECT_DIR / "Dockerfile").read_text()
    command = json.loads(re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)[-1])

    assert command == compose["services"]["web"]["command"]
