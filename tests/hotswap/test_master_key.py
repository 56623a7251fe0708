"""The master key is replaced, and whatever it had sealed still opens."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP
from cryptography.exceptions import InvalidTag
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, models
from django.utils import timezone

from deployments.models import WEBHOOK_PURPOSE, Gateway, Webhook
from firmware.models import SigningKey
from firmware.services import keys as firmware_keys
from hotswap import master_key
from hotswap.common import keyring
from hotswap.common.idempotency_answers import opened
from hotswap.common.idempotency_answers import sealed as sealed_body
from hotswap.common.keyring import is_sealed_by_first, seal, unseal
from hotswap.common.models import AuditEvent, KeyFingerprint, RememberedAnswer
from hotswap.common.sealed_field import SealedField
from hotswap.common.services import check_keys, ensure_keys
from hotswap.master_key import (
    RotationHeldUpError,
    RotationRunsError,
    rotate_master_key,
    sealed_columns,
)
from hotswap.monitoring.doctor import Verdict, examine
from tests.common.factories import PersonFactory
from tests.deployments.world import World

AT_ONCE = timedelta(0)


@pytest.fixture
def keys(db: None, settings: Any, tmp_path: Path) -> Iterator[Path]:
    """Give a copy of the key files that a test may change."""
    shutil.copytree(settings.KEYS_DIR, tmp_path / "keys")
    settings.KEYS_DIR = tmp_path / "keys"
    keyring.forget_keys()
    firmware_keys._private_key.cache_clear()
    ensure_keys()
    yield tmp_path / "keys"
    keyring.forget_keys()
    firmware_keys._private_key.cache_clear()


@pytest.fixture
def sealed(keys: Path) -> None:
    """Seal something of every kind."""
    World()
    person = PersonFactory.create()
    TOTP.activate(person, "JBSWY3DPEHPK3PXP")
    RecoveryCodes.activate(person)
    Webhook.objects.create(
        url="https://example.com",
        sealed_secret=seal(b"secret", purpose=WEBHOOK_PURPOSE),
        previous_sealed_secret=seal(b"former", purpose=WEBHOOK_PURPOSE),
    )
    gateway = Gateway()
    gateway.url = "json://example.com/secret"
    gateway.save()
    RememberedAnswer.objects.create(
        principal="somebody",
        key="key",
        route="/route",
        request_digest="0" * 64,
        body=sealed_body(b"an answer"),
    )


def everything() -> list[tuple[master_key.SealedColumn, Any, bytes]]:
    return [
        (column, row, each)
        for column in sealed_columns()
        for row in column.model._base_manager.order_by("pk")
        for each in column.read(row)
    ]


def plain() -> list[bytes]:
    return [unseal(each, purpose=column.purpose) for column, _, each in everything()]


@pytest.mark.usefixtures("sealed")
def test_everything_is_sealed_anew_and_says_the_same(keys: Path) -> None:
    before = plain()
    former = keyring.master_keys()
    assert {column.model for column, _, _ in everything()} >= {
        *(SigningKey, Webhook, Gateway, RememberedAnswer, Authenticator)
    }

    done = rotate_master_key(actor=None, settling=AT_ONCE)

    assert done.unreadable == ()
    assert done.resealed >= 6
    assert keyring.master_keys() != former
    assert len(keyring.master_keys()) == 1
    assert plain() == before
    assert AuditEvent.objects.filter(verb="master-key.rotated").count() == 1
    check_keys()


@pytest.mark.usefixtures("sealed")
def test_the_former_key_opens_nothing_afterwards(keys: Path) -> None:
    former = (keys / "master.key").read_bytes()
    rotate_master_key(actor=None, settling=AT_ONCE)

    (keys / "master.key").write_bytes(former)

    with pytest.raises(InvalidTag):
        plain()
    with pytest.raises(ImproperlyConfigured, match=r"master\.key is not the one"):
        check_keys()


class Killed(BaseException):
    """The end of a process, which nothing catches."""


@pytest.mark.usefixtures("sealed")
@pytest.mark.parametrize("number", range(12))
def test_killed_at_any_instant_it_is_gone_on_with(
    keys: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plain()
    monkeypatch.setattr(master_key, "ROWS_A_STEP", 1)
    instants = iter(range(100))

    def counted(work: Any) -> Any:
        def may_die(*args: Any, **kwargs: Any) -> Any:
            if next(instants) == number:
                raise Killed
            return work(*args, **kwargs)

        return may_die

    with monkeypatch.context() as killing:
        for owner, name in (
            (keyring, "add_master_key"),
            (master_key, "_next_rows"),
            (master_key, "_wait_for_transactions"),
            (keyring, "drop_former_master_keys"),
        ):
            killing.setattr(owner, name, counted(getattr(owner, name)))
        with pytest.raises(Killed):
            rotate_master_key(actor=None, settling=AT_ONCE)

    # A start in between finds its keys, and reads what they have sealed.
    check_keys()
    assert plain() == before
    rotate_master_key(actor=None, settling=AT_ONCE)
    assert len(keyring.master_keys()) == 1
    assert plain() == before
    check_keys()


@pytest.mark.usefixtures("sealed")
def test_killed_before_the_former_key_goes_it_goes_with_the_next_run(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise Killed

    with monkeypatch.context() as killing:
        killing.setattr(keyring, "drop_former_master_keys", die)
        with pytest.raises(Killed):
            rotate_master_key(actor=None, settling=AT_ONCE)
    check_keys()
    new = keyring.master_keys()[0]

    done = rotate_master_key(actor=None, settling=AT_ONCE)

    assert done.resealed == 0
    assert keyring.master_keys() == (new,)


def test_both_keys_open_while_a_rotation_is_not_over(keys: Path) -> None:
    old = seal(b"old", purpose="a test")
    keyring.add_master_key()
    new = seal(b"new", purpose="a test")

    assert unseal(old, purpose="a test") == b"old"
    assert unseal(new, purpose="a test") == b"new"
    assert not is_sealed_by_first(old, purpose="a test")
    assert is_sealed_by_first(new, purpose="a test")
    check_keys()
    told = [each.says for each in examine() if each.verdict == Verdict.WARNING]
    assert any("rotation of the master key is not over" in says for says in told)


def test_another_process_reads_the_new_file_at_once(keys: Path) -> None:
    before = keyring.master_keys()
    content = (keys / "master.key").read_text()

    # As another process does it: this one is not told.
    (keys / "draft").write_text(f"{'ab' * 32}\n{content}")
    (keys / "draft").rename(keys / "master.key")

    assert keyring.master_keys() == (bytes.fromhex("ab" * 32), *before)


@pytest.mark.parametrize("text", ["", "no key", "ab" * 31, f"{'ab' * 32}\nspoiled"])
def test_a_spoiled_master_key_ends_the_start(keys: Path, text: str) -> None:
    (keys / "master.key").write_text(text)

    with pytest.raises(ImproperlyConfigured, match="hexadecimal digits"):
        check_keys()


def test_what_no_key_opens_is_named_and_kept(keys: Path) -> None:
    answer = RememberedAnswer.objects.create(
        principal="somebody", key="key", route="/", request_digest="0", body=b"x" * 40
    )

    done = rotate_master_key(actor=None, settling=AT_ONCE)

    assert done.unreadable == (f"common.RememberedAnswer {answer.pk}",)
    answer.refresh_from_db()
    assert bytes(answer.body or b"") == b"x" * 40


@pytest.mark.django_db(transaction=True)
def test_the_former_key_stays_while_somebody_may_still_seal_with_it(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(settings.KEYS_DIR, tmp_path / "keys")
    settings.KEYS_DIR = tmp_path / "keys"
    keyring.forget_keys()
    other = connection.copy()
    monkeypatch.setattr(master_key, "LONGEST_WAIT", timedelta(0))
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            with pytest.raises(RotationHeldUpError):
                rotate_master_key(actor=None, settling=AT_ONCE)
            assert len(keyring.master_keys()) == 2
            cursor.execute("ROLLBACK")
        rotate_master_key(actor=None, settling=AT_ONCE)
        assert len(keyring.master_keys()) == 1
    finally:
        other.close()
        keyring.forget_keys()
        # The other tests have the former files again.
        KeyFingerprint.objects.filter(name="master").delete()


def test_one_rotation_runs_at_a_time(keys: Path) -> None:
    before = keyring.master_keys()
    other = os.open(keys, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        with pytest.raises(RotationRunsError):
            rotate_master_key(actor=None, settling=AT_ONCE)
    finally:
        os.close(other)

    assert keyring.master_keys() == before
    rotate_master_key(actor=None, settling=AT_ONCE)
    assert keyring.master_keys() != before


def test_every_column_of_sealed_bytes_says_what_it_is_sealed_for() -> None:
    purposes = {
        (model, field.name): getattr(field, "purpose", "")
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if isinstance(field, SealedField)
        or (isinstance(field, models.BinaryField) and "sealed" in field.name)
    }

    assert len(purposes) >= 7
    assert all(purposes.values()), purposes


def test_every_purpose_of_sealing_is_known() -> None:
    purposes = {column.purpose for column in sealed_columns()}
    root = Path(keyring.__file__).parents[2]
    sources = [
        path
        for folder in ("hotswap", "firmware", "devices", "health", "deployments")
        for path in (root / folder).rglob("*.py")
        if path.name not in ("keyring.py", "master_key.py")
    ]
    users = {path.stem for path in sources if "purpose=" in path.read_text()}

    # Whoever seals under a new purpose keeps it in a `SealedField` of that purpose.
    assert len(purposes) >= 7
    assert users >= {"idempotency_answers", "account_adapters", "imports", "keys"}
    assert users <= {
        *("idempotency_answers", "account_adapters", "imports", "keys"),
        *("receivers", "webhook", "models"),
    }


def test_remembered_answers_open_as_before(keys: Path) -> None:
    answer = RememberedAnswer.objects.create(
        principal="somebody",
        key="key",
        route="/",
        request_digest="0",
        body=sealed_body(b"an answer"),
        created_at=timezone.now(),
    )

    rotate_master_key(actor=None, settling=AT_ONCE)

    answer.refresh_from_db()
    assert opened(answer) == b"an answer"
