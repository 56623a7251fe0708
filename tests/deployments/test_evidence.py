"""The evidence packs of a firmware and of a deployment."""

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner

from deployments.models import Deployment, Report
from firmware.signing import is_signed
from hotswap.cli.main import app
from hotswap.common import keyring
from hotswap.common.models import AuditEvent
from tests.callers import PersonCaller
from tests.deployments.world import World


@pytest.fixture
def finished(world: World, settings: Any, tmp_path: Path) -> Deployment:
    """A deployment in which devices proved the update."""
    settings.AUDIT_DIR = tmp_path / "audit"
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(3, old)
    deployment = world.launch(new, "Direct")
    world.update_offered()
    world.tick(1)
    # What a real device says beside the status.
    for report in Report.objects.filter(status="confirming").select_related("update"):
        said = {"bootId": "boot-2", "firmwareChecksum": new.sha256}
        Report.objects.filter(pk=report.pk).update(body={**report.body, **said})
    return deployment


@pytest.fixture
def public_key(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(
        keyring.audit_key()
        .public_key()
        .public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return path


def fetched(caller: Any, route: str, folder: Path) -> tuple[Path, dict[str, bytes]]:
    answer = caller.get(f"/api/v1/{route}")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/zip"
    path = folder / "evidence.zip"
    content = b"".join(answer.streaming_content) if answer.streaming else answer.content
    path.write_bytes(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return path, {name: archive.read(name) for name in archive.namelist()}


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def lines(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


def test_a_pack_of_a_deployment_holds_plan_outcome_and_proof(
    admin: PersonCaller,
    finished: Deployment,
    tmp_path: Path,
    public_key: Path,
) -> None:
    path, files = fetched(admin, f"deployments/{finished.pk}/evidence", tmp_path)

    told = json.loads(files["deployment.json"])
    assert told["id"] == str(finished.pk)
    assert [stage["status"] for stage in told["stages"]] == ["passed"]
    assert {row["status"] for row in table(files["devices.csv"])} == {"success"}
    orders = table(files["orders.csv"])
    assert len(orders) == 3
    for order in orders:
        assert order["kind"] == "install"
        assert order["provedAt"]
        assert order["claimedSha256"] == order["sha256"] == finished.firmware.sha256
        assert order["claimedBootId"] not in ("", order["bootIdBefore"])
    assert {row["event"] for row in lines(files["log.ndjson"])} >= {
        "deployment.started",
        "device.updated",
    }
    verbs = [row["verb"] for row in lines(files["audit-events.ndjson"])]
    assert verbs[0] == "deployment.created"
    assert verbs[-1] == "deployment.evidence-exported"
    words = ["evidence", "verify", str(path), "--public-key", str(public_key)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "It is what the server has signed." in done.stdout


def test_a_pack_of_a_firmware_holds_its_signatures_and_approval(
    admin: PersonCaller,
    finished: Deployment,
    tmp_path: Path,
    public_key: Path,
) -> None:
    firmware = finished.firmware
    path, files = fetched(admin, f"firmware/{firmware.pk}/evidence", tmp_path)

    told = json.loads(files["firmware.json"])
    (signature,) = told["signatures"]
    assert told["sha256"] == told["approvedSha256"] == firmware.sha256
    assert told["approvedBy"]["name"] == firmware.approved_by.username  # type: ignore[union-attr]
    assert is_signed(
        signature["publicKey"], bytes.fromhex(told["sha256"]), signature["signature"]
    )
    assert lines(files["manifests.ndjson"])
    verbs = [row["verb"] for row in lines(files["audit-events.ndjson"])]
    assert verbs[0] == "firmware.uploaded"
    assert "firmware.approved" in verbs
    shown = CliRunner().invoke(
        app,
        ["evidence", "verify", str(path), "--public-key", str(public_key), "--json"],
    )
    assert json.loads(shown.stdout)["genuine"] is True


def test_a_changed_pack_is_refused_by_the_command(
    admin: PersonCaller,
    finished: Deployment,
    tmp_path: Path,
    public_key: Path,
) -> None:
    path, files = fetched(admin, f"deployments/{finished.pk}/evidence", tmp_path)
    files["devices.csv"] = files["devices.csv"].replace(b"success", b"failed", 1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)

    done = CliRunner().invoke(
        app, ["evidence", "verify", str(path), "--public-key", str(public_key)]
    )

    assert done.exit_code == 1
    assert "devices.csv is not the file that was signed" in done.stdout


def test_the_command_refuses_what_is_no_key(tmp_path: Path) -> None:
    words = ["evidence", "verify", __file__, "--public-key", __file__]

    done = CliRunner().invoke(app, words)

    assert done.exit_code == 2
    assert "no_key" in done.stderr


def test_that_evidence_goes_out_is_audited(
    admin: PersonCaller,
    finished: Deployment,
    tmp_path: Path,
) -> None:
    fetched(admin, f"firmware/{finished.firmware_id}/evidence", tmp_path)

    row = AuditEvent.objects.get(verb="firmware.evidence-exported")
    assert row.object_id == str(finished.firmware_id)
    assert row.actor is not None
