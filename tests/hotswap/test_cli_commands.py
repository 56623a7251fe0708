"""The commands that speak to a server: real processes, a real server."""

import hashlib
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from devices.simulator.synthetic import Temper
from tests.live import ADMIN_PASSWORD, ADMIN_USERNAME, PROJECT_DIR, clean_environment
from tests.waiting import wait_until

pytestmark = pytest.mark.stack

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(live_stack: Any, tmp_path: Path) -> dict[str, str]:
    """What a person's shell has: the server, and a home of its own."""
    return {
        **clean_environment(),
        "HOTSWAP_SERVER": live_stack.url,
        "HOTSWAP_CONFIG_DIR": str(tmp_path / "config"),
        "COLUMNS": "200",
    }


@pytest.fixture
def anyone(environment: dict[str, str]) -> Run:
    """Run a command without credentials."""

    def run(
        *words: str, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hotswap.cli.main", *words],
            cwd=PROJECT_DIR,
            env=environment | variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def token(live_stack: Any) -> str:
    """An access token of the first Admin."""
    answer = httpx.post(
        f"{live_stack.url}/api/v1/auth/token",
        json={"username": ADMIN_USERNAME, "password": ADMIN_PASSWORD},
        timeout=60,
    )
    return str(answer.json()["access"])


@pytest.fixture
def admin(anyone: Run, token: str) -> Run:
    """Run a command as the first Admin."""

    def run(
        *words: str, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return anyone(*words, stdin=stdin, **({"HOTSWAP_TOKEN": token} | variables))

    return run


@pytest.fixture
def model(live_stack: Any, token: str) -> str:
    """A device model of this test alone."""
    name = f"cli-{uuid.uuid4().hex[:12]}"
    made = httpx.post(
        f"{live_stack.url}/api/v1/device-models",
        json={"name": name},
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )
    assert made.status_code == 201, made.text
    return name


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """Check that a command succeeded and return its document."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_pipeline_publishes_firmware(admin: Run, model: str, tmp_path: Path) -> None:
    image = tmp_path / "image.bin"
    image.write_bytes(os.urandom(200_000))
    checksum = hashlib.sha256(image.read_bytes()).hexdigest()
    words = ("firmware", "upload", str(image), "--model", model, "--version", "2.5.0")

    first = answer(admin(*words, "--notes", "Faster.", "--json"))
    again = admin(*words, "--json")
    approved = answer(
        admin(
            *("firmware", "approve", f"{model}:2.5.0", "--comment", "tested"),
            *("--checksum", checksum, "--json"),
        )
    )
    listed = answer(admin("firmware", "list", "--model", model, "--json"))
    usage = answer(admin("firmware", "usage", first["id"], "--json"))
    retired = answer(
        admin(
            *("firmware", "deprecate", first["id"], "--reason", "old"),
            *("--cancel-deployments", "--json"),
        )
    )

    assert (first["status"], first["checksum"]) == ("Draft", checksum)
    assert first["releaseNotes"] == "Faster."
    assert answer(again)["id"] == first["id"]
    assert "there already" in again.stderr
    assert approved["status"] == "Approved"
    assert [row["id"] for row in listed] == [first["id"]]
    assert (usage["deviceCount"], usage["deployments"]) == (0, [])
    assert (retired["status"], retired["cancelledDeployments"]) == ("Deprecated", [])
    back = answer(
        admin("firmware", "reinstate", first["id"], "--reason", "new", "--json")
    )
    assert (back["status"], back["statusComment"]) == ("Approved", "new")


def test_a_draft_is_deleted(admin: Run, model: str, tmp_path: Path) -> None:
    image = tmp_path / "image.bin"
    image.write_bytes(b"firmware")
    admin("firmware", "upload", str(image), "--model", model, "--version", "1.0.0")

    deleted = admin("firmware", "delete", f"{model}:1.0.0")
    listed = answer(admin("firmware", "list", "--model", model, "--json"))

    assert deleted.returncode == 0, deleted.stderr
    assert listed == []


def test_another_checksum_is_not_approved(
    admin: Run, model: str, tmp_path: Path
) -> None:
    image = tmp_path / "image.bin"
    image.write_bytes(b"firmware")
    admin("firmware", "upload", str(image), "--model", model, "--version", "1.0.0")

    done = admin("firmware", "approve", f"{model}:1.0.0", "--checksum", "0" * 64)

    assert done.returncode == 1
    assert (
        answer(admin("firmware", "show", f"{model}:1.0.0", "--json"))["status"]
        == "Draft"
    )


def test_a_refusal_says_why_and_ends_with_one(
    admin: Run, model: str, tmp_path: Path
) -> None:
    image = tmp_path / "image.bin"
    image.write_bytes(b"firmware")
    words = ("firmware", "upload", str(image), "--model", model, "--version", "new")

    plain = admin(*words)
    as_json = admin(*words, "--json")

    assert plain.returncode == 1
    assert "/version" in plain.stderr
    assert plain.stdout == ""
    assert json.loads(as_json.stderr)["errors"][0]["pointer"] == "/version"


def test_a_device_is_registered_and_looked_after(
    admin: Run, model: str, tmp_path: Path
) -> None:
    name = f"device-{model}"
    key_file = tmp_path / "key"
    words = ("device", "register", name, "--model", model, "--json")

    made = answer(admin(*words, "--tag", "site=plant-7", "--key-file", str(key_file)))
    disabled = answer(admin("device", "disable", name, "--json"))
    listed = answer(admin("device", "list", "--model", model, "--json"))
    rotated = answer(admin("device", "rotate-key", name, "--json"))
    revoked = answer(admin("device", "revoke", name, "--yes", "--json"))

    assert made["tags"] == {"site": "plant-7"}
    assert "apiKey" not in made
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert key_file.read_text().startswith("hsd_")
    assert rotated["apiKey"] not in {"", key_file.read_text()}
    assert disabled["enabled"] is False
    assert [row["deviceId"] for row in listed] == [name]
    assert revoked["status"] == "revoked"


def test_what_cannot_be_undone_is_not_done_where_nobody_can_be_asked(
    admin: Run, model: str
) -> None:
    name = f"kept-{model}"
    admin("device", "register", name, "--model", model)
    admin("group", "create", name)

    done = [
        admin("device", "revoke", name),
        admin("device", "erase", name),
        admin("group", "delete", name),
    ]

    assert [each.returncode for each in done] == [5, 5, 5]
    assert all("--yes" in each.stderr for each in done)
    assert answer(admin("device", "show", name, "--json"))["status"] == "never_seen"
    assert admin("group", "show", name).returncode == 0


def test_a_refused_registration_leaves_no_key_file(admin: Run, tmp_path: Path) -> None:
    done = admin(
        *("device", "register", "nobody", "--model", "no-such-model"),
        *("--agent-dir", str(tmp_path / "agent")),
    )

    assert done.returncode == 1
    assert "unknown_model" in done.stderr
    assert not (tmp_path / "agent").exists()


def test_a_registered_agent_can_be_started_at_once(
    admin: Run, model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "agent"
    name = f"agent-{model}"

    done = admin(
        *("device", "register", name, "--model", model, "--agent-dir", str(folder))
    )
    command = shlex.split(done.stderr.splitlines()[-1])
    agent = subprocess.run(
        [*command, "--once"],
        cwd=PROJECT_DIR,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert command[1:] == ["--config", str(folder / "agent.toml")]
    assert Path(command[0]).name == "hotswap-agent"
    assert agent.returncode == 0, agent.stderr
    shown = answer(admin("device", "show", name, "--json"))
    assert shown["lastSeenAt"] is not None


def test_many_devices_are_imported_with_a_result_per_line(
    admin: Run, model: str, tmp_path: Path
) -> None:
    file = tmp_path / "fleet.csv"
    rows = [f"{model}-{number},{model}" for number in range(50)]
    file.write_text("deviceId,model\n" + "\n".join([*rows, "bad id,none"]) + "\n")
    keys = tmp_path / "keys.csv"

    done = admin("device", "import", str(file), "--keys-file", str(keys), "--json")

    assert done.stdout, done.stderr
    summary = json.loads(done.stdout)
    assert done.returncode == 1
    assert (summary["created"], summary["rejected"]) == (50, 1)
    assert summary["rejections"][0]["line"] == 52
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert len(keys.read_text().splitlines()) == 51


def test_an_exported_list_is_edited_and_imported(
    admin: Run, model: str, tmp_path: Path
) -> None:
    for number in range(2):
        admin("device", "register", f"{model}-{number}", "--model", model)
    file, keys = tmp_path / "fleet.csv", tmp_path / "keys.csv"

    export = admin("device", "export", "--model", model, "--output", str(file))
    again = admin("device", "export", "--model", model, "--output", str(file))
    shown = admin("device", "export", "--model", model)
    text = file.read_text(encoding="utf-8-sig")
    edited = text.replace("US-EAST", "EU", 1) + f"{model}-2,{model},,,,,,,\n"
    file.write_text(edited)
    upsert = ("device", "import", str(file), "--mode", "upsert")
    dry = answer(admin(*upsert, "--dry-run", "--json"))
    keyless = admin(*upsert)
    done = answer(admin(*upsert, "--keys-file", str(keys), "--json"))
    spoken = admin(*upsert, "--dry-run")

    assert export.returncode == 0, export.stderr
    assert again.returncode == 2
    assert shown.stdout.lstrip("\ufeff").split() == text.split()
    assert [(row["deviceId"], row["action"]) for row in dry["results"]] == [
        (f"{model}-0", "update"),
        (f"{model}-2", "create"),
    ]
    assert dry["results"][0]["changes"] == [
        {"field": "region", "from": "US-EAST", "to": "EU"}
    ]
    assert keyless.returncode == 2
    assert (done["created"], done["updated"], done["unchanged"]) == (1, 1, 1)
    assert len(keys.read_text().splitlines()) == 2
    assert spoken.returncode == 0
    assert "update" not in spoken.stderr


def test_groups_are_made_filled_and_removed(admin: Run, model: str) -> None:
    name = f"group {model}"
    for number in range(2):
        admin("device", "register", f"{model}-{number}", "--model", model)

    made = answer(admin("group", "create", name, "--json"))
    added = admin("group", "add", name, f"{model}-0", f"{model}-1")
    removed = admin(
        "group", "remove", made["id"], f"{model}-0", "--acknowledge-audience"
    )
    members = answer(admin("group", "devices", name, "--json"))
    unknown = admin("group", "add", name, "no-such-device")
    gone = admin("group", "delete", name, "--yes")
    shown = admin("group", "show", name)

    assert "has 2 devices" in added.stderr
    assert "has 1 device." in removed.stderr
    assert [row["deviceId"] for row in members] == [f"{model}-1"]
    assert unknown.returncode == 1
    assert "/deviceIds/0" in unknown.stderr
    assert gone.returncode == 0
    assert shown.returncode == 1


def test_a_dynamic_group_is_previewed_and_made(admin: Run, model: str) -> None:
    rule = json.dumps({"model": [model]})
    admin("device", "register", f"{model}-0", "--model", model)

    preview = answer(admin("group", "preview", rule, "--json"))
    made = answer(admin("group", "create", model, "--rule", rule, "--json"))

    shown = admin("group", "show", model)

    assert preview["count"] == 1
    assert rule in shown.stdout
    assert (made["type"], made["deviceCount"]) == ("Dynamic", 1)


def test_a_login_is_kept_for_its_owner_alone(
    anyone: Run, environment: dict[str, str]
) -> None:
    kept = Path(environment["HOTSWAP_CONFIG_DIR"]) / "login.json"

    before = anyone("device", "list")
    wrong = anyone("login", ADMIN_USERNAME, "--password-stdin", stdin="wrong\n")
    right = anyone(
        "login", ADMIN_USERNAME, "--password-stdin", stdin=f"{ADMIN_PASSWORD}\n"
    )
    listed = anyone("device", "list", "--limit", "1")
    mode = stat.S_IMODE(kept.stat().st_mode)
    # An old access token is exchanged, and the new pair is kept.
    old = json.loads(kept.read_text())
    kept.write_text(json.dumps(old | {"until": 0}))
    renewed = anyone("device", "list", "--limit", "1")
    new = json.loads(kept.read_text())
    out = anyone("logout")
    ended = httpx.post(
        f"{environment['HOTSWAP_SERVER']}/api/v1/auth/refresh",
        json={"refresh": new["refresh"]},
    )

    assert before.returncode == 4
    assert "hotswap login" in before.stderr
    assert wrong.returncode == 4
    assert right.returncode == 0, right.stderr
    assert listed.returncode == 0, listed.stderr
    assert mode == 0o600
    assert renewed.returncode == 0, renewed.stderr
    assert new["refresh"] != old["refresh"]
    assert out.returncode == 0
    assert not kept.exists()
    assert ended.status_code == 401


def test_a_token_comes_from_a_file_or_a_variable(
    anyone: Run, token: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(token + "\n")

    by_file = anyone("firmware", "list", "--token-file", str(file))
    by_variable = anyone("firmware", "list", HOTSWAP_TOKEN=token)
    by_password = anyone(
        *("firmware", "list"),
        HOTSWAP_USERNAME=ADMIN_USERNAME,
        HOTSWAP_PASSWORD=ADMIN_PASSWORD,
    )
    by_neither = anyone("firmware", "list", HOTSWAP_TOKEN="worthless")

    assert by_file.returncode == 0, by_file.stderr
    assert by_variable.returncode == 0, by_variable.stderr
    assert by_password.returncode == 0, by_password.stderr
    assert by_neither.returncode == 4


def test_settings_come_from_a_file(
    anyone: Run, environment: dict[str, str], live_stack: Any, tmp_path: Path
) -> None:
    password_file = tmp_path / "password"
    password_file.write_text(ADMIN_PASSWORD)
    config = Path(environment["HOTSWAP_CONFIG_DIR"]) / "config.toml"
    config.parent.mkdir()
    config.write_text(
        f"server = {json.dumps(live_stack.url)}\n"
        f"username = {json.dumps(ADMIN_USERNAME)}\n"
        f"password_file = {json.dumps(str(password_file))}\n"
    )

    right = anyone("group", "list", HOTSWAP_SERVER="")
    config.write_text("sever = 'http://127.0.0.1'\n")
    wrong = anyone("group", "list", HOTSWAP_SERVER="")

    assert right.returncode == 0, right.stderr
    assert wrong.returncode == 2
    assert "sever: unknown key" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "variables", "code", "text"),
    [
        (("list",), {"HOTSWAP_SERVER": "http://127.0.0.1:9"}, 3, "does not answer"),
        (("list",), {"HOTSWAP_SERVER": "http://10.0.0.1"}, 2, "not encrypted"),
        (("list",), {"HOTSWAP_SERVER": "ftp://x"}, 2, "not an http(s) address"),
        (("show", "nonsense"), {}, 2, "MODEL:VERSION"),
        (("show", "none:1.0.0"), {}, 1, "no device model"),
        (("upload", "/no/such/file"), {}, 2, "does not exist"),
        (("list", "--token-file", "/no/such/file"), {}, 2, "/no/such/file"),
    ],
)
def test_what_went_wrong_is_told_by_the_exit_code(
    admin: Run, words: tuple[str, ...], variables: dict[str, str], code: int, text: str
) -> None:
    done = admin("firmware", *words, **variables)

    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_what_no_server_said_is_json_too_where_that_was_asked_for(admin: Run) -> None:
    done = admin("device", "list", "--json", HOTSWAP_SERVER="http://127.0.0.1:9")

    assert done.returncode == 3
    problem = json.loads(done.stderr)
    assert problem["code"] == "unreachable"
    assert "does not answer" in problem["detail"]


@dataclass
class SimulatedFleet:
    """`hotswap simulate` as a process, and an image for it."""

    live_stack: Any
    environment: dict[str, str]
    token: str
    model: str
    firmware: dict[str, Any]
    process: subprocess.Popen[str] | None = None

    def start(self, count: int, *words: str) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "hotswap.cli.main", "simulate", "--json"),
                *("--devices", str(count), "--model", self.model),
                *("--prefix", self.model, *words),
            ],
            cwd=PROJECT_DIR,
            env=self.environment | {"HOTSWAP_TOKEN": self.token},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(
            lambda: len(self.devices(status="online")) == count or self.has_ended(),
            what="the fleet online",
        )

    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def devices(self, **query: str) -> list[dict[str, Any]]:
        rows = self.ask("GET", "/devices", params={"model": self.model} | query)
        return list(rows["results"])

    def ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = httpx.request(
            method,
            f"{self.live_stack.url}/api/v1{path}",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=60,
            **options,
        )
        assert answer.is_success, answer.text
        return dict(answer.json())

    def launch(self) -> str:
        """Deploy the image to the whole fleet, whatever goes wrong."""
        body = {
            "firmwareId": self.firmware["id"],
            "strategy": "Direct",
            "targetDevices": [each["deviceId"] for each in self.devices()],
            "healthThreshold": 1,
            "maxAttempts": 1,
            "healthCriteria": {"confirmationDuration": "PT2S"},
            "rollbackThresholds": {"successRate": 1},
            "acknowledge": ["no_previous_image", "whole_fleet"],
        }
        return str(self.ask("POST", "/deployments", json=body)["id"])

    def end(self) -> dict[str, Any]:
        """Wait for its end and return its summary."""
        assert self.process is not None
        said, complaints = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, complaints
        return dict(json.loads(said))


@pytest.fixture
def simulated(
    admin: Run,
    environment: dict[str, str],
    live_stack: Any,
    token: str,
    model: str,
    tmp_path: Path,
) -> Iterator[SimulatedFleet]:
    image = tmp_path / "image.bin"
    image.write_bytes(os.urandom(20_000))
    words = ("firmware", "upload", str(image), "--model", model, "--version", "2.0.0")
    firmware = answer(admin(*words, "--json"))
    answer(admin("firmware", "approve", firmware["id"], "--json"))
    fleet = SimulatedFleet(live_stack, environment, token, model, firmware)
    yield fleet
    if fleet.process is not None and fleet.process.poll() is None:
        fleet.process.kill()
        fleet.process.communicate()


def test_a_simulated_fleet_fails_where_it_was_told_to(
    simulated: SimulatedFleet, tmp_path: Path
) -> None:
    names = [f"{simulated.model}-{number:02}" for number in range(1, 11)]
    checksum = simulated.firmware["checksum"]

    def fails(name: str, seed: int) -> bool:
        return Temper(fail_rate=0.3, seed=seed).draw(name, checksum)[0]

    # Names and image are new each time; a seed that makes three fail is looked for.
    seed = next(
        seed for seed in count() if sum(fails(name, seed) for name in names) == 3
    )
    report = tmp_path / "report.json"
    simulated.start(
        10,
        *("--region", "US-EAST", "--region", "APAC"),
        *("--fail-rate", "0.3", "--seed", str(seed), "--report", str(report)),
    )
    deployment = simulated.launch()

    def is_settled() -> bool:
        status = simulated.ask("GET", f"/deployments/{deployment}/status")
        progress = status["progress"]
        # One that says that it fell back before it is heard on its former image again
        # is ordered there, and proves it.
        fell_back = progress["failed"] + progress["rolledBack"]
        return (progress["success"], fell_back) == (7, 3)

    wait_until(is_settled, what="seven updated and three failed devices")
    targets = simulated.ask("GET", f"/deployments/{deployment}/devices")["results"]
    devices = simulated.devices()
    assert simulated.process is not None
    simulated.process.send_signal(signal.SIGINT)
    summary = simulated.end()

    assert {
        row["deviceId"] for row in targets if row["errorCode"] == "self_test_failed"
    } == {name for name in names if fails(name, seed)}
    assert summary["running"] == {"2.0.0": 7, "1.0.0": 3}
    assert summary == json.loads(report.read_text())
    assert {row["region"] for row in devices} == {"US-EAST", "APAC"}
    assert all(row["tags"] == {"simulated": "yes"} for row in devices)


def test_a_simulated_fleet_ends_when_all_run_the_version(
    simulated: SimulatedFleet,
) -> None:
    simulated.start(2, "--until-version", "2.0.0", "--seconds", "120")
    simulated.launch()

    assert simulated.end()["running"] == {"2.0.0": 2}


def test_a_person_from_the_first_login_to_the_erasure(admin: Run) -> None:
    name = f"ada-{uuid4().hex[:8]}"

    def people(*words: str) -> Any:
        done = admin("people", *words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    made = people("create", name, "--role", "Operator")
    edited = people("edit", name, "--email", "ada@example.com")
    invited = admin("people", "invite", name)
    reset = people("reset", made["id"])
    off, on = people("disable", name), people("enable", name)
    listed = people("list", "--search", name)
    exported = json.loads(admin("people", "export", name).stdout)
    unconfirmed = admin("people", "erase", name)
    erased = admin("people", "erase", name, "--yes")
    gone = admin("people", "show", name)

    assert made["role"] == "Operator"
    assert edited["email"] == "ada@example.com"
    assert invited.returncode == 0, invited.stderr
    assert "ada@example.com" in invited.stderr
    assert reset["password"] != made["password"]
    assert (off["enabled"], on["enabled"]) == (False, True)
    assert [each["username"] for each in listed] == [name]
    assert exported["person"]["email"] == "ada@example.com"
    assert exported["auditEvents"][-1]["verb"] == "person.exported"
    assert unconfirmed.returncode == 5
    assert erased.returncode == 0, erased.stderr
    assert made["id"] in erased.stderr
    assert gone.returncode == 1
