"""Addresses, intervals, configuration: the small decisions at the edges."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from devices.agent.application import clean_metrics, read_metrics
from devices.agent.backoff import Backoff
from devices.agent.config import ConfigError, load_config, parse_config
from devices.agent.transport import HttpTransport, InsecureAddressError

CONFIG: dict[str, Any] = {
    "server": "https://updates.example",
    "device_id": "device-1",
    "model": "sensor-v1",
    "api_key_file": "api-key",
    "data_dir": "/var/lib/agent",
    "trusted_keys": ["key.pem"],
}
HOOKS: dict[str, Any] = {
    "kind": "hooks",
    **{name: ["hook"] for name in ("current", "install", "activate", "reboot")},
    "revert": ["hook"],
}


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("https://updates.example", True),
        ("http://127.0.0.1:8000", True),
        ("http://localhost", True),
        ("http://[::1]:8000", True),
        ("http://updates.example", False),
        ("http://127.0.0.1.example", False),
        ("http://10.0.0.1", False),
        ("file:///etc/passwd", False),
        ("ftp://127.0.0.1", False),
    ],
)
def test_plain_http_is_for_loopback_only(address: str, is_allowed: bool) -> None:
    if is_allowed:
        HttpTransport(address, "device-1", "key")
    else:
        with pytest.raises(InsecureAddressError):
            HttpTransport(address, "device-1", "key")


def test_plain_http_can_be_allowed_on_purpose() -> None:
    HttpTransport("http://10.0.0.1", "device-1", "key", allow_insecure_http=True)


def test_api_key_is_not_in_the_text_of_the_transport() -> None:
    assert "secret" not in repr(HttpTransport("https://a.example", "d", "secret"))


def test_backoff_doubles_up_to_its_ceiling_with_jitter() -> None:
    backoff = Backoff(1.0, 8.0, Random(1))

    waits = [backoff.next_seconds() for _ in range(6)]

    for wait, ideal in zip(waits, [1, 2, 4, 8, 8, 8], strict=True):
        assert ideal / 2 <= wait <= ideal


def test_backoff_waits_at_least_what_the_server_asks() -> None:
    assert 30 <= Backoff(1.0, 8.0).next_seconds(30.0) <= 36
    assert Backoff(1.0, 8.0).next_seconds(1e9) <= 3600 * 1.2


def test_metrics_are_finite_numbers_and_the_rate_is_a_rate() -> None:
    found = {"errorRate": 7, "a": 1, "b": "x", "c": True, "d": float("nan"), "": 2}

    assert clean_metrics(found) == {"errorRate": 1.0, "a": 1}
    assert len(clean_metrics({str(number): number for number in range(100)})) == 58


@pytest.mark.parametrize("content", ["", "[1]", "{", "7", '{"a": "b"}'])
def test_metrics_file_without_use_is_no_metrics(content: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(content)

    assert read_metrics(path) == {}


def test_configuration_takes_paths_relative_to_its_file(tmp_path: Path) -> None:
    config = parse_config(CONFIG, folder=tmp_path)

    assert config.api_key_file == tmp_path / "api-key"
    assert config.data_dir == Path("/var/lib/agent")
    assert config.trusted_keys == (tmp_path / "key.pem",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"server": 7}, "server: a string expected"),
        ({"server": ""}, "server: a string expected"),
        ({"trusted_keys": []}, "trusted_keys: at least one key expected"),
        ({"trusted_keys": "key.pem"}, "trusted_keys: a list of strings expected"),
        ({"boot_id": "random"}, "boot_id: process or kernel expected"),
        ({"boot_id": "kernel"}, "reboot_command: expected with boot_id = 'kernel'"),
        ({"factory_image": "a"}, "factory_version: expected beside factory_image"),
        ({"factory_version": "v" * 65}, "factory_version: at most 64 printable"),
        ({"factory_version": "1\t2"}, "factory_version: at most 64 printable"),
        ({"self_test_seconds": 0}, "self_test_seconds: a number of seconds above 0"),
        ({"allow_insecure_http": 1}, "allow_insecure_http: true or false expected"),
        ({"limits": {"chunk_bytes": 0}}, "limits.chunk_bytes: a whole number"),
        ({"limits": {"chunks": 1}}, "limits.chunks: unknown key"),
        ({"application": {"command": []}}, "application.command: at least one word"),
        ({"application": {"environment": {"A": 1}}}, "application.environment.A"),
        ({"client_key": "a"}, "client_certificate: expected beside client_key"),
        ({"enrolment": {"region": "EU"}}, "enrolment_token_file: expected beside"),
        (
            {"enrolment_token_file": "t", "enrolment": {"tags": {"site": 7}}},
            "enrolment.tags.site: a string expected",
        ),
        ({"installer": {"kind": "rauc"}}, "installer.kind: slots or hooks expected"),
        ({"installer": {"kind": "hooks"}}, "installer.current: missing"),
        ({"installer": {"install": ["x"]}}, "installer.install: only with kind"),
        (
            {"installer": {"timeout_seconds": {"instal": 1}}},
            "installer.timeout_seconds.instal: unknown key",
        ),
        (
            {"installer": {**HOOKS, "factory_sha256": "abc"}},
            "installer.factory_sha256: 64 lower-case hex digits expected",
        ),
        ({"installer": HOOKS, "boot_id": "process"}, "boot_id: 'kernel' expected"),
        (
            {"installer": HOOKS, "factory_image": "a", "factory_version": "1.0.0"},
            "factory_image: installer.factory_sha256 expected instead",
        ),
        (
            {"installer": HOOKS, "reboot_command": ["reboot"]},
            "reboot_command: installer.reboot expected instead",
        ),
        (
            {"installer": HOOKS, "application": {"command": ["{image}"]}},
            "application.command: {image} is for slots only",
        ),
        (
            {"application": {"metrics_file": "m.json"}},
            "application.metrics_file: only with an empty command",
        ),
        ({"colour": "red"}, "colour: unknown key"),
    ],
)
def test_wrong_configuration_is_refused_by_key(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config({**CONFIG, **change}, folder=Path())

    assert message in str(raised.value)


@pytest.mark.parametrize("key", sorted(CONFIG))
def test_missing_key_is_named(key: str) -> None:
    content = {name: value for name, value in CONFIG.items() if name != key}

    with pytest.raises(ConfigError, match=f"^{key}: missing$"):
        parse_config(content, folder=Path())


def test_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("server = ")

    with pytest.raises(ConfigError):
        load_config(path)
