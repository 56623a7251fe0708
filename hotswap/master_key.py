"""Rotation of the master key: all that it has sealed in the database, sealed anew.

Rules:
- A new key is put before the former one in `master.key`: it seals from that moment on,
  and both open. When nothing is left that the former one sealed it leaves the file.
- It may be killed at any instant and is gone on with by running it again: what is
  sealed anew is known by the key that opens it, and by nothing else.
- The former key goes only after the last transaction has ended that may have sealed
  with it, and after another look at everything.
"""

import base64
import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from allauth.mfa.models import Authenticator
from cryptography.exceptions import InvalidTag
from django.apps import apps
from django.conf import settings
from django.db import connection, models, transaction

from hotswap.common import account_adapters, audit, keyring
from hotswap.common.errors import ConflictError
from hotswap.common.models import KeyFingerprint, User
from hotswap.common.sealed_field import SealedField

ROWS_A_STEP: Final = 200
# Between the sealing of a secret and its first statement.
SETTLING: Final = timedelta(seconds=10)
LOOK_AGAIN_SECONDS: Final = 0.2
# Nothing of HotSwap's own takes as long as this inside of one transaction.
LONGEST_WAIT: Final = timedelta(minutes=10)

OLDER_TRANSACTIONS: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type = 'client backend'
    AND xact_start < clock_timestamp() - make_interval(secs => %s)
"""


class RotationRunsError(ConflictError):
    code = "rotation_runs"


class RotationHeldUpError(ConflictError):
    code = "rotation_held_up"


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column of sealed bytes, empty where nothing is sealed."""

    model: type[models.Model]
    field: str
    purpose: str

    def read(self, row: Any) -> list[bytes]:
        """Return what is sealed in a row."""
        value = getattr(row, self.field)
        return [bytes(value)] if value else []

    def write(self, row: Any, change: Callable[[bytes], bytes]) -> None:
        """Replace what is sealed in a row."""
        setattr(row, self.field, change(bytes(getattr(row, self.field))))


class SealedFactor(SealedColumn):
    """The secrets of second factors, as base64 in the JSON of allauth."""

    NAMES: Final = ("secret", "seed", "migrated_codes")

    def read(self, row: Any) -> list[bytes]:
        return [base64.b64decode(text) for text in self._texts(row.data)]

    def write(self, row: Any, change: Callable[[bytes], bytes]) -> None:
        def changed(text: str) -> str:
            return base64.b64encode(change(base64.b64decode(text))).decode()

        row.data = row.data | {
            name: [changed(text) for text in value]
            if isinstance(value, list)
            else changed(value)
            for name, value in row.data.items()
            if name in self.NAMES
        }

    def _texts(self, data: dict[str, Any]) -> Iterator[str]:
        for name in self.NAMES:
            value = data.get(name, [])
            yield from value if isinstance(value, list) else [value]


def sealed_columns() -> tuple[SealedColumn, ...]:
    """Return what the master key seals: each `SealedField`, and what allauth has."""
    return (
        *(
            SealedColumn(model, field.attname, field.purpose)
            for model in apps.get_models()
            for field in model._meta.local_concrete_fields
            if isinstance(field, SealedField)
        ),
        SealedFactor(Authenticator, "data", account_adapters.PURPOSE),
    )


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did: how many rows it sealed anew, and which none can open."""

    resealed: int
    unreadable: tuple[str, ...]


def rotate_master_key(
    *,
    actor: User | None,
    on_progress: Callable[[int], None] = lambda _: None,
    settling: timedelta | None = None,
) -> Rotated:
    """Put a new master key in the place of the former one, or end what was begun.

    Args:
        on_progress: called with the number of rows that were sealed anew so far.
        settling: how long after the change of the file the last look may begin; by
            default `SETTLING`.

    Returns:
        What was done. Rows that no key opens were so before, and are named.

    Raises:
        RotationRunsError: another process is at it.
        RotationHeldUpError: a transaction from before does not end; run it again.
    """
    with _alone():
        if len(keyring.master_keys()) == 1:
            keyring.add_master_key()
        began = time.monotonic()
        resealed, _ = _reseal_all(on_progress, 0)
        _wait_for_transactions(began, SETTLING if settling is None else settling)
        resealed, unreadable = _reseal_all(on_progress, resealed)
        with transaction.atomic():
            KeyFingerprint.objects.filter(name="master").update(
                fingerprint=keyring.master_fingerprints()[0]
            )
            audit.record(
                actor=actor,
                verb="master-key.rotated",
                object_kind="master-key",
                object_id="master",
                details={"sealedAnew": resealed, "unreadable": len(unreadable)},
            )
        keyring.drop_former_master_keys()
    return Rotated(resealed, unreadable)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    # Of the file and not of the database: it goes with a process that dies.
    folder = os.open(settings.KEYS_DIR, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise RotationRunsError("another process rotates the master key") from None
    try:
        yield
    finally:
        os.close(folder)


def _wait_for_transactions(began: float, settling: timedelta) -> None:
    """Wait until whoever may have sealed with the former key has committed.

    Args:
        began: on the monotonic clock, when the new key was in the file at the latest.
    """
    ends = time.monotonic() + LONGEST_WAIT.total_seconds()
    while True:
        since = time.monotonic() - began
        if since >= settling.total_seconds():
            with connection.cursor() as cursor:
                cursor.execute(OLDER_TRANSACTIONS, [since])
                if cursor.fetchone() == (0,):
                    return
        if time.monotonic() > ends:
            raise RotationHeldUpError(
                "a transaction from before the new key does not end; the former key "
                "stays in the file: run this again"
            )
        time.sleep(LOOK_AGAIN_SECONDS)


def _reseal_all(
    on_progress: Callable[[int], None], done: int
) -> tuple[int, tuple[str, ...]]:
    unreadable: list[str] = []
    for column in sealed_columns():
        last: Any = None
        while True:
            with transaction.atomic():
                rows = _next_rows(column, last)
                for row in rows:
                    outcome = _reseal(column, row)
                    done += outcome is True
                    if outcome is None:
                        unreadable.append(f"{column.model._meta.label} {row.pk}")
            if not rows:
                break
            last = rows[-1].pk
            on_progress(done)
    return done, tuple(unreadable)


def _next_rows(column: SealedColumn, last: Any) -> list[Any]:
    found = column.model._base_manager.order_by("pk")
    if last is not None:
        found = found.filter(pk__gt=last)
    return list(found.select_for_update(no_key=True)[:ROWS_A_STEP])


def _reseal(column: SealedColumn, row: Any) -> bool | None:
    """Seal a row anew; False if it need not be, None if no key opens it."""
    sealed = column.read(row)
    purpose = column.purpose
    if all(keyring.is_sealed_by_first(each, purpose=purpose) for each in sealed):
        return False
    try:
        column.write(
            row,
            lambda each: keyring.seal(
                keyring.unseal(each, purpose=purpose), purpose=purpose
            ),
        )
    except InvalidTag:
        return None
    row.save(update_fields=[column.field])
    return True
