"""The logs of a real stack: every line is JSON, and no secret is in any of them."""

import base64
import json
import secrets
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deployments.agents import new_model
from tests.deployments.fleet import frozen, redis_of
from tests.deployments.live import LiveAdmin
from tests.live import LiveStack
from tests.waiting import wait_until

pytestmark = pytest.mark.stack
PROGRAMS = ("web", "worker", "beat")


def lines_of(stack: LiveStack) -> list[dict[str, Any]]:
    """Return the lines of all programs; each has to be one JSON object."""
    return [
        json.loads(line)
        for name in PROGRAMS
        for line in (stack.data_dir / "logs" / f"{name}.log").read_text().splitlines()
    ]


def test_every_line_is_json_and_leads_from_a_problem_to_its_cause(
    live_stack: LiveStack,
) -> None:
    problem = httpx.get(f"{live_stack.url}/api/v1/devices?password=canary").json()
    wait_until(
        lambda: any(
            line.get("traceId") == problem["traceId"] for line in lines_of(live_stack)
        ),
        what="the line of the refusal",
    )

    for line in lines_of(live_stack):
        assert list(line)[:4] == ["timestamp", "level", "message", "logger"]
        assert line["level"] in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}


def test_what_the_supervisor_says_is_json(live_stack: LiveStack) -> None:
    live_stack.kill("beat")
    wait_until(lambda: live_stack.has_logged("beat restarted"), what="beat is back")

    said = [line for line in live_stack.said().splitlines() if line.startswith("{")]
    messages = [json.loads(line)["message"] for line in said]
    assert "beat ended (killed by SIGKILL)" in messages
    assert "beat restarted" in messages


def test_secrets_and_names_stay_out_of_the_logs(live_stack: LiveStack) -> None:
    canary = f"canary{secrets.token_hex(8)}"
    with httpx.Client(base_url=f"{live_stack.url}/api/v1", timeout=60) as client:
        login = {"username": live_stack.admin_username, "password": canary}
        answers = [client.post("/auth/token", json=login).text]
        login["password"] = live_stack.admin_password
        tokens = client.post("/auth/token", json=login).json()
        bearer = {"Authorization": f"Bearer {tokens['access']}"}
        wrong = {"Authorization": f"Bearer {canary}"}
        answers += [
            client.post("/auth/token", json={**login, "username": canary}).text,
            client.post("/auth/refresh", json={"refresh": canary}).text,
            client.get("/devices", headers=wrong).text,
            client.get(f"/nothing?token={canary}", headers=bearer).text,
            client.post(
                "/auth/device-token", json={"deviceId": "d-1", "apiKey": canary}
            ).text,
            client.post(
                "/webhooks",
                json={"url": f"ftp://{canary}@example.org/"},
                headers=bearer,
            ).text,
        ]
    problem = json.loads(answers[-1])
    wait_until(
        lambda: problem["traceId"] in _logs(live_stack), what="the last of the lines"
    )

    text = _logs(live_stack) + live_stack.said()
    for secret in (canary, tokens["access"], tokens["refresh"]):
        assert secret not in text
    assert live_stack.admin_password not in text
    assert canary not in "".join(answers)


def _logs(stack: LiveStack) -> str:
    folder: Path = stack.data_dir / "logs"
    return "".join(path.read_text() for path in folder.iterdir())


def test_planted_values_stay_out_of_everything_that_leaves_the_server(
    live_stack: LiveStack,
) -> None:
    admin = LiveAdmin(live_stack)
    planted = {name: f"canary{secrets.token_hex(6)}" for name in ("mail", "reason")}
    model = new_model(admin)
    worker = live_stack.pid("worker")
    assert worker is not None
    # What is handed to the worker stays in Redis while it is frozen.
    with frozen(worker), closing(redis_of(live_stack)) as broker:
        # Redis gives the next one or two to the connection that waited for them.
        wait_until(lambda: broker.llen("celery"), what="a task that nobody takes")
        device = f"d-{secrets.token_hex(4)}"
        key = admin.post("/devices", {"deviceId": device, "model": model})["apiKey"]
        planted["key"] = key
        image = secrets.token_bytes(2_000)
        firmware = admin.client.post(
            "/firmware",
            files={"file": ("image", image)},
            data={"model": model, "version": "1.0.0"},
        ).json()
        mail = admin.post(
            "/mail-recipients", {"address": f"{planted['mail']}@example.org"}
        )
        admin.post(f"/mail-recipients/{mail['id']}/test", {}, status=202)
        admin.post(
            f"/firmware/{firmware['id']}/reject",
            {"comment": planted["reason"]},
            status=200,
        )
        device_token = admin.client.post(
            "/auth/device-token", json={"deviceId": device, "apiKey": key}
        ).json()["access"]
        planted["device token"] = device_token
        handed: list[Any] = broker.lrange("celery", 0, -1)
        handed_over = b"".join(
            base64.b64decode(json.loads(each)["body"]) + bytes(each) for each in handed
        )
    problems = [
        admin.client.post("/auth/token", json={"username": planted["mail"]}).text,
        admin.client.get("/devices", headers={"Authorization": f"Bearer {key}"}).text,
    ]
    metrics = admin.client.get(f"{live_stack.url}/metrics").text
    wait_until(
        lambda: admin.get(f"/mail-recipients/{mail['id']}/deliveries")["results"],
        what="a mail has been tried",
    )

    assert handed_over
    text = _logs(live_stack) + live_stack.said() + metrics + "".join(problems)
    for name, value in planted.items():
        assert value.encode() not in handed_over, name
        assert value not in text, name
