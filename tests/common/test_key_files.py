"""Key files that are lost, swapped or spoiled keep HotSwap from starting."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import Client

from hotswap.common import keyring
from hotswap.common.models import KeyFingerprint
from hotswap.common.services import check_keys, ensure_keys

pytestmark = pytest.mark.django_db


@pytest.fixture
def keys(settings: Any, tmp_path: Path) -> Iterator[Path]:
    """Give a copy of the key files that a test may damage."""
    shutil.copytree(settings.KEYS_DIR, tmp_path / "keys")
    settings.KEYS_DIR = tmp_path / "keys"
    keyring.forget_keys()
    yield tmp_path / "keys"
    keyring.forget_keys()


def token_file(keys: Path) -> Path:
    (path,) = (keys / "tokens").glob("*.pem")
    return path


def swap_token(keys: Path) -> Path:
    path = token_file(keys)
    content = (keys / "tokens" / f"{keyring.create_token_key()}.pem").read_bytes()
    path.write_bytes(content)
    return path


def strangers(keys: Path) -> Path:
    path = token_file(keys)
    keyring.create_token_key()
    path.unlink()
    return path


def written(name: str, text: str) -> Callable[[Path], Path]:
    def damage(keys: Path) -> Path:
        (keys / name).write_text(text)
        return keys / name

    return damage


def removed(name: str) -> Callable[[Path], Path]:
    def damage(keys: Path) -> Path:
        (keys / name).unlink()
        return keys / name

    return damage


def without_tokens(keys: Path) -> Path:
    shutil.rmtree(keys / "tokens")
    return keys / "tokens"


def spoiled_token(keys: Path) -> Path:
    token_file(keys).write_text("no key")
    return token_file(keys)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (removed("master.key"), "is missing"),
        (removed("pepper.key"), "is missing"),
        (removed("audit.key"), "hotswap keys replace-audit"),
        (without_tokens, "there is no token key"),
        (written("master.key", "0" * 64), "is not the one"),
        (written("pepper.key", "0" * 64), "is not the one"),
        (swap_token, "is not the one"),
        (strangers, "others are in their place"),
        (written("master.key", ""), "does not hold 64"),
        (written("master.key", "abcd"), "does not hold 64"),
        (written("pepper.key", "no hex"), "does not hold 64"),
        (spoiled_token, "does not hold a private key"),
    ],
)
def test_nothing_starts_and_the_file_is_named(
    keys: Path, damage: Callable[[Path], Path], said: str
) -> None:
    path = damage(keys)
    keyring.forget_keys()
    before = sorted(keys.rglob("*"))

    for start in (check_keys, ensure_keys, lambda: call_command("prepare")):
        with pytest.raises((ImproperlyConfigured, CommandError)) as refused:
            start()
        assert str(path) in str(refused.value)
        assert said in str(refused.value)
        assert "restore it from your backup" in str(refused.value)
    assert sorted(keys.rglob("*")) == before


def test_files_that_are_all_there_are_no_matter(keys: Path) -> None:
    check_keys()
    ensure_keys()


def test_an_older_database_learns_its_token_keys(keys: Path) -> None:
    KeyFingerprint.objects.filter(name__startswith="tokens/").delete()

    ensure_keys()

    known = KeyFingerprint.objects.get(name__startswith="tokens/")
    assert known.name == f"tokens/{token_file(keys).stem}"


def test_a_token_key_may_be_added_and_the_former_taken_away(keys: Path) -> None:
    former = token_file(keys)
    new = keyring.create_token_key()
    keyring.forget_keys()
    ensure_keys()
    former.unlink()
    keyring.forget_keys()

    ensure_keys()

    known = KeyFingerprint.objects.get(name__startswith="tokens/")
    assert known.name == f"tokens/{new}"


def test_a_server_whose_token_keys_have_gone_is_not_ready(keys: Path) -> None:
    without_tokens(keys)
    keyring.forget_keys()

    answer = Client().get("/health/ready")

    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "keys": "unusable"}
