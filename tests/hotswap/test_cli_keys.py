"""`hotswap keys ...`: what it prints, what it leaves behind, how it ends."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from firmware.models import Firmware, SigningKey, StorageKey, WrappedKey
from firmware.services.keys import file_key
from firmware.storage import image_store
from hotswap import master_key
from hotswap.cli.main import app
from hotswap.common import keyring
from hotswap.common.models import AuditEvent, KeyFingerprint
from hotswap.common.trail.chain import key_id
from tests.common.factories import PersonFactory
from tests.firmware.factories import FirmwareFactory

pytestmark = pytest.mark.django_db

Run = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in [name for name in os.environ if name.startswith("HOTSWAP_")]:
        monkeypatch.delenv(name)
    return lambda *words: CliRunner().invoke(app, ["keys", *words])


@pytest.fixture
def ask(run: Run) -> Run:
    """Run a command that is to succeed, and give its JSON."""

    def ask(*words: str) -> Any:
        done = run(*words, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return ask


@pytest.fixture
def key_files(settings: Any, tmp_path: Path) -> Any:
    """Give a copy of the key files that a test may damage."""
    shutil.copytree(settings.KEYS_DIR, tmp_path / "keys")
    settings.KEYS_DIR = tmp_path / "keys"
    keyring.forget_keys()
    yield tmp_path / "keys"
    keyring.forget_keys()


def test_the_master_key_is_replaced(
    ask: Run, key_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master_key, "SETTLING", timedelta(0))
    FirmwareFactory.create()
    before = (key_files / "master.key").read_text()

    done = ask("rotate-master")

    assert done["sealedAnew"] >= 2
    assert done["unreadable"] == []
    after = (key_files / "master.key").read_text()
    assert after != before
    assert len(after.split()) == 1
    FirmwareFactory.create()


def active() -> str:
    return SigningKey.objects.get(status="Active").key_id


def test_both_rings_are_listed(run: Run, ask: Run) -> None:
    FirmwareFactory.create()

    rings = ask("list")
    text = run("list").stdout

    (signing,), (storage,) = rings["signingKeys"], rings["storageKeys"]
    assert (signing["keyId"], signing["status"]) == (active(), "Active")
    assert signing["publicKey"].startswith("-----BEGIN PUBLIC KEY-----")
    assert storage["imagesWrapped"] == 1
    assert "PRIVATE" not in json.dumps(rings)
    assert signing["keyId"] in text
    assert storage["keyId"] in text


def test_a_key_is_published_rotated_in_and_the_former_retired(ask: Run) -> None:
    former = active()
    FirmwareFactory.create()

    following = ask("create-signing")["keyId"]
    rotated = ask("rotate-signing", "--overlap-days", "7")
    retired = ask("retire", former, "--yes")

    assert rotated["keyId"] == following == active()
    assert rotated["imagesSigned"] == 1
    assert retired["status"] == "Retired"


def test_a_revocation_says_what_it_holds_back_and_how_to_go_on(run: Run) -> None:
    FirmwareFactory.create(approved=True)
    former = active()
    run("create-signing")

    revoked = run("revoke", former, "--reason", "leaked", "--yes")
    deployable = Firmware.objects.deployable().count()
    signed = run("re-sign", "--after-revocation", "--yes")

    assert revoked.exit_code == 0
    assert "1 image is held back" in revoked.stdout
    assert "hotswap keys re-sign --after-revocation" in revoked.stdout
    assert deployable == 0
    assert "1 image was signed again" in signed.stdout
    assert Firmware.objects.deployable().count() == 1


def test_a_revocation_can_sign_at_once(ask: Run) -> None:
    FirmwareFactory.create(approved=True)
    former = active()
    ask("create-signing")

    done = ask("revoke", former, "--reason", "leaked", "--re-sign", "--yes")

    assert (done["status"], done["comment"]) == ("Revoked", "leaked")
    assert (done["imagesSigned"], done["imagesHeldBack"]) == (1, 0)
    assert done["activeKeyId"] == active() != former


def test_a_damaged_image_is_left_out_and_told_by_the_exit_code(run: Run) -> None:
    damaged = FirmwareFactory.create()
    former = active()
    Path(image_store().path(damaged.storage_name)).unlink()
    run("create-signing")

    done = run("revoke", former, "--reason", "leaked", "--re-sign", "--yes", "--json")

    assert done.exit_code == 6
    assert list(json.loads(done.stdout)["refused"]) == [str(damaged.pk)]


def test_a_storage_key_is_rotated_retired_and_deleted(run: Run, ask: Run) -> None:
    FirmwareFactory.create()
    former = StorageKey.objects.get().key_id

    done = ask("rotate-storage")
    deleted = ask("delete", former, "--yes")
    again = run("re-wrap")

    assert (done["keysWrapped"], done["retired"]) == (1, [former])
    assert deleted == {"keyId": former, "deleted": True}
    assert StorageKey.objects.get().key_id == done["keyId"]
    assert again.exit_code == 0


def test_a_key_that_does_not_open_is_told_by_the_exit_code(run: Run) -> None:
    firmware = FirmwareFactory.create()
    WrappedKey.objects.update(wrapped=bytes(60))
    file_key.cache_clear()

    done = run("rotate-storage")

    assert done.exit_code == 6
    assert f"does not open: {firmware.storage_name}" in done.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("retire", "{active}", "--yes"), "last_key"),
        (("revoke", "{active}", "--reason", "x", "--yes"), "last_key"),
        (("retire", "f00", "--yes"), "unknown_key"),
        (("revoke", "f00", "--reason", "x", "--yes"), "unknown_key"),
        (("retire", "{storage}", "--yes"), "unknown_key"),
        (("delete", "{storage}", "--yes"), "key_in_use"),
        (("delete", "f00", "--yes"), "unknown_key"),
        (("replace-tokens", "--yes"), "token_keys_present"),
        (("replace-audit", "--yes"), "audit_key_present"),
    ],
)
def test_a_refusal_changes_nothing_and_has_a_code(
    run: Run, words: tuple[str, ...], code: str
) -> None:
    names = {"active": active(), "storage": StorageKey.objects.get().key_id}
    before = list(AuditEvent.objects.values_list("pk"))

    done = run(*(word.format(**names) for word in words), "--json")

    assert done.exit_code == 1
    assert json.loads(done.stderr)["code"] == code
    assert done.stdout == ""
    assert list(AuditEvent.objects.values_list("pk")) == before


def test_a_second_next_key_is_refused_in_words(run: Run) -> None:
    run("create-signing")

    done = run("create-signing")

    assert done.exit_code == 1
    assert "[next_key_exists]" in done.stderr


@pytest.mark.parametrize("verb", ["retire", "revoke", "delete"])
def test_what_cannot_be_undone_wants_a_yes(run: Run, verb: str) -> None:
    former = active()
    run("rotate-signing")
    more = ("--reason", "leaked") if verb == "revoke" else ()

    done = run(verb, former, *more)

    assert done.exit_code == 5
    assert "--yes" in done.stderr
    assert SigningKey.objects.get(key_id=former).status == "Retiring"


@pytest.mark.parametrize(
    "words",
    [
        ("revoke", "f00"),
        ("revoke", "f00", "--reason", " "),
        ("rotate-signing", "--overlap-days", "-1"),
        ("rotate-signing", "--as", "nobody"),
        ("turn",),
    ],
)
def test_wrong_usage_is_exit_code_2(run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2
    assert SigningKey.objects.count() == 1


def test_the_person_who_acts_is_in_the_audit_trail(run: Run, ask: Run) -> None:
    person = PersonFactory.create(admin=True)
    other = PersonFactory.create(operator=True)

    ask("create-signing", "--as", person.username)
    refused = run("rotate-signing", "--as", other.username)

    event = AuditEvent.objects.latest("pk")
    assert (event.verb, event.actor) == ("signing-key.created", person.pseudonym)
    assert refused.exit_code == 2


def test_with_another_master_key_nothing_is_done(run: Run, key_files: Path) -> None:
    (key_files / "master.key").write_text("0" * 64)
    keyring.forget_keys()

    done = run("rotate-signing", "--json")

    assert done.exit_code == 3
    assert str(key_files / "master.key") in json.loads(done.stderr)["detail"]
    assert SigningKey.objects.count() == 1


def test_a_database_that_was_never_prepared_is_told(run: Run) -> None:
    KeyFingerprint.objects.all().delete()

    done = run("list")

    assert done.exit_code == 3
    assert "hotswap manage prepare" in done.stderr


def test_lost_token_keys_are_replaced(ask: Run, key_files: Path) -> None:
    for path in (key_files / "tokens").iterdir():
        path.unlink()
    keyring.forget_keys()

    name = ask("replace-tokens", "--yes")["keyId"]

    keyring.forget_keys()
    assert [key.kid for key in keyring.token_keys()] == [name]
    known = KeyFingerprint.objects.filter(name__startswith="tokens/")
    assert known.get().name == f"tokens/{name}"


def test_a_lost_audit_key_is_replaced(ask: Run, run: Run, key_files: Path) -> None:
    (key_files / "audit.key").unlink()
    keyring.forget_keys()

    refused = run("list")
    name = ask("replace-audit", "--yes")["keyId"]

    assert refused.exit_code == 3
    assert "hotswap keys replace-audit" in refused.stderr
    keyring.forget_keys()
    assert key_id(keyring.audit_key().public_key()) == name
    row = AuditEvent.objects.get(verb="audit-key.replaced")
    assert row.object_id == name
    ask("list")
