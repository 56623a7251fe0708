"""Registering many devices from a file (FR-FW-002).

Rules:
- The file lies in the database, line by line, before the request is answered. From
  then on the database is the queue: a worker takes a chunk of lines, and its devices,
  keys, outcomes and counts are committed together or not at all. A worker that dies
  loses the chunk it was at, and the next one does it again.
- Each line stands alone. What the API would refuse is refused here, by the same rules
  and with the same codes; the other lines do not suffer.
- An import may change devices that are registered (upsert): what a line does not say
  stays. An id may stand in one line only.
- A dry run does all that and takes it back, chunk by chunk; what it would have changed
  is kept with each line, and the file for a day, so that it can be applied.
- Keys are kept sealed until they are delivered. A download may break off, so they can
  be fetched again for a while, until the caller says that it has them.
"""

import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from celery import current_app
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from devices.choices import (
    OPEN_IMPORTS,
    ImportFormat,
    ImportMode,
    ImportStatus,
    LineOutcome,
)
from devices.exceptions import (
    DeviceExistsError,
    EmptyImportError,
    ImportNotApplicableError,
    ImportNotFinishedError,
    ImportNotFoundError,
    KeysGoneError,
)
from devices.models import (
    IMPORT_KEYS_PURPOSE,
    DeviceImport,
    DeviceImportKeys,
    DeviceImportLine,
)
from devices.services.registry import (
    FieldChange,
    StatedDevice,
    change_devices,
    locked_devices,
    register_devices,
)
from devices.services.version_keys import share_version_orders
from hotswap.common import audit
from hotswap.common.copying import copy_rows
from hotswap.common.errors import HotSwapError
from hotswap.common.keyring import seal, unseal
from hotswap.common.models import User

logger = logging.getLogger(__name__)

TASK = "devices.tasks.run_imports"
CHUNK_LINES = 2000
# A worker that died is replaced after this; a chunk takes a fraction of it.
LEASE = timedelta(seconds=10)
# So often may a chunk stop its worker before the import is given up.
MAX_ATTEMPTS = 5
# So often is a chunk tried again because a name was taken at the same time.
MAX_RACES = 5
KEYS_HEADER = b"deviceId,apiKey\r\n"


@dataclass(frozen=True, slots=True)
class ReadLine:
    """What a line says: a device, or why it is none."""

    device: StatedDevice | None
    device_id: str = ""
    code: str = ""
    detail: str = ""


class Reader(Protocol):
    """Reads a line by the rules of the API; None stands for one that is too long."""

    def read(self, raw: bytes | None) -> ReadLine: ...


ReaderOf = Callable[[str, list[str], str], Reader]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a line."""

    line: int
    outcome: LineOutcome
    device_id: str
    code: str = ""
    detail: str = ""
    changes: Sequence[FieldChange] = ()


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What is to be done with a file.

    Attributes:
        is_acknowledged: the caller knows that deployments to come reach other devices.
    """

    mode: ImportMode = ImportMode.CREATE
    is_dry_run: bool = False
    is_acknowledged: bool = False


# --- Taking a file in --------------------------------------------------------------


def begin_import(
    *,
    actor: User,
    file_format: ImportFormat,
    columns: list[str],
    lines: Iterable[tuple[int, bytes | None]],
    options: ImportOptions | None = None,
) -> DeviceImport:
    """Keep a file and have it worked off.

    Args:
        columns: the header of a CSV file; nothing for NDJSON.
        lines: number and bytes of each line that is not empty; None for the bytes of
            one that is too long.

    Raises:
        EmptyImportError: there is no line (400).
    """
    with transaction.atomic():
        options = options or ImportOptions()
        batch = DeviceImport.objects.create(
            format=file_format,
            columns=columns,
            mode=options.mode,
            is_dry_run=options.is_dry_run,
            is_acknowledged=options.is_acknowledged,
            requested_by=actor,
        )
        batch.total = _keep_lines(batch, lines)
        if batch.total == 0:
            raise EmptyImportError("the file holds no devices")
        _start(batch)
    return batch


def _start(batch: DeviceImport) -> None:
    batch.save(update_fields=["total"])
    audit.record(
        actor=batch.requested_by,
        verb="device-import.started",
        object_kind="device-import",
        object_id=batch.pk,
        details={
            "lines": batch.total,
            "mode": batch.mode,
            "isDryRun": batch.is_dry_run,
        },
    )
    transaction.on_commit(_wake_a_worker, robust=True)


def apply_import(
    *, actor: User, import_id: UUID, is_acknowledged: bool = False
) -> DeviceImport:
    """Do what a dry run has shown, by an import of the same lines.

    What has changed since then is judged anew.

    Raises:
        ImportNotFoundError, ImportNotFinishedError.
        ImportNotApplicableError: it is no dry run, was applied already, or its file is
            gone (409).
    """
    with transaction.atomic():
        shown = _finished(import_id)
        if not shown.may_be_applied:
            raise ImportNotApplicableError(
                "only a dry run is applied, once, within a day: import the file again"
            )
        batch = DeviceImport.objects.create(
            format=shown.format,
            columns=shown.columns,
            mode=shown.mode,
            is_acknowledged=is_acknowledged or shown.is_acknowledged,
            total=shown.total,
            requested_by=actor,
        )
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO devices_deviceimportline
                    (batch_id, line, raw, outcome, device_id, code, detail)
                SELECT %s, line, raw, '', '', '', ''
                FROM devices_deviceimportline WHERE batch_id = %s
                """,
                [batch.pk, shown.pk],
            )
        shown.applied_as = batch
        shown.save(update_fields=["applied_as"])
        _start(batch)
    return batch


def _keep_lines(batch: DeviceImport, lines: Iterable[tuple[int, bytes | None]]) -> int:
    count = 0

    def rows() -> Iterator[tuple[UUID, int, bytes | None]]:
        nonlocal count
        for number, raw in lines:
            yield batch.pk, number, raw
            count += 1

    copy_rows(DeviceImportLine, ("batch_id", "line", "raw"), rows())
    return count


def _wake_a_worker() -> None:
    """Say that there is work. Without Redis it is found by the next sweep."""
    current_app.send_task(TASK, retry=False, ignore_result=True)


# --- Working it off ----------------------------------------------------------------


def run_imports(
    *, reader_of: ReaderOf, clock: Callable[[], datetime] = timezone.now
) -> None:
    """Work off every import that nobody else is at."""
    runner = uuid.uuid4()
    while (batch := _lease(runner, clock)) is not None:
        reader = reader_of(batch.format, batch.columns, batch.mode)
        while _work_off_chunk(batch.pk, runner, reader, clock):
            pass


def _lease(runner: UUID, clock: Callable[[], datetime]) -> DeviceImport | None:
    """Take the oldest open import that has no worker, and count the attempt."""
    while True:
        now = clock()
        with transaction.atomic():
            batch = (
                DeviceImport.objects.select_for_update(skip_locked=True, no_key=True)
                .filter(
                    Q(leased_until__isnull=True) | Q(leased_until__lte=now),
                    status__in=OPEN_IMPORTS,
                )
                .order_by("created_at")
                .first()
            )
            if batch is None:
                return None
            if batch.attempts >= MAX_ATTEMPTS:
                _give_up(batch, now)
                continue
            batch.attempts += 1
            batch.status = ImportStatus.RUNNING
            batch.leased_by = runner
            batch.leased_until = now + LEASE
            batch.save(
                update_fields=["attempts", "status", "leased_by", "leased_until"]
            )
            return batch


def _give_up(batch: DeviceImport, now: datetime) -> None:
    batch.failure = (
        f"the server failed {batch.attempts} times at the lines after "
        f"{batch.done_through}; they were not registered, and can be sent again"
    )
    logger.error("Device import failed", extra={"importId": str(batch.pk)})
    _finish(batch, ImportStatus.FAILED, now)


def _finish(batch: DeviceImport, status: ImportStatus, now: datetime) -> None:
    batch.status = status
    batch.finished_at = batch.updated_at = now
    batch.leased_by = batch.leased_until = None
    batch.save()
    # What was not looked at is not kept either.
    DeviceImportLine.objects.filter(batch=batch, line__gt=batch.done_through).delete()
    audit.record(
        actor=None,
        verb=f"device-import.{status.value.lower()}",
        object_kind="device-import",
        object_id=batch.pk,
        details={
            "total": batch.total,
            "created": batch.created,
            "updated": batch.updated,
            "unchanged": batch.unchanged,
            "rejected": batch.rejected,
        },
    )


def _work_off_chunk(
    batch_id: UUID, runner: UUID, reader: Reader, clock: Callable[[], datetime]
) -> bool:
    """Register the next lines; tell whether there may be more for this worker."""
    for is_last_try in (*[False] * MAX_RACES, True):
        try:
            with transaction.atomic():
                return _register_lines(batch_id, runner, reader, clock())
        except IntegrityError:
            # A device of the chunk was registered elsewhere at the same time.
            if is_last_try:
                raise
    return False


def _register_lines(
    batch_id: UUID, runner: UUID, reader: Reader, now: datetime
) -> bool:
    batch = (
        DeviceImport.objects.select_for_update(of=("self",), no_key=True)
        .select_related("requested_by")
        .filter(pk=batch_id, leased_by=runner, status=ImportStatus.RUNNING)
        .first()
    )
    if batch is None:
        # Another worker took over, because this one was too slow.
        return False
    lines = [
        (number, None if raw is None else bytes(raw))
        for number, raw in DeviceImportLine.objects.filter(
            batch=batch, line__gt=batch.done_through
        )
        .order_by("line")
        .values_list("line", "raw")[:CHUNK_LINES]
    ]
    if not lines:
        _finish(batch, ImportStatus.COMPLETED, now)
        return False
    with transaction.atomic():
        outcomes, keys = _outcomes(batch, lines, reader)
        if batch.is_dry_run:
            keys = []
            transaction.set_rollback(True)
    _keep_outcomes(batch, outcomes)
    if keys:
        DeviceImportKeys.objects.create(
            batch=batch,
            sealed=seal("".join(keys).encode(), purpose=IMPORT_KEYS_PURPOSE),
        )
    counts = Counter(each.outcome for each in outcomes)
    batch.created += counts[LineOutcome.CREATED]
    batch.updated += counts[LineOutcome.UPDATED]
    batch.unchanged += counts[LineOutcome.UNCHANGED]
    batch.rejected += counts[LineOutcome.REJECTED]
    batch.done_through = lines[-1][0]
    # This lease is the first attempt at the next chunk.
    batch.attempts = 1
    batch.leased_until = now + LEASE
    batch.save(
        update_fields=[
            *("created", "updated", "unchanged", "rejected", "done_through"),
            *("attempts", "leased_until"),
        ]
    )
    return True


def _outcomes(
    batch: DeviceImport, lines: Sequence[tuple[int, bytes | None]], reader: Reader
) -> tuple[list[Outcome], list[str]]:
    """Do what can be done; give the outcome of each line, and the keys as CSV."""
    read = [(number, reader.read(raw)) for number, raw in lines]
    outcomes = [
        Outcome(number, LineOutcome.REJECTED, line.device_id, line.code, line.detail)
        for number, line in read
        if line.device is None
    ]
    good = [(number, line.device) for number, line in read if line.device is not None]
    if batch.mode == ImportMode.UPSERT:
        return _upserted(batch, good, outcomes)
    return _created(batch, good, outcomes)


Stated = Sequence[tuple[int, StatedDevice]]


def _earlier_lines(batch: DeviceImport, names: Collection[str]) -> dict[str, int]:
    """Return the line of earlier chunks that has each name, where one has."""
    rows = DeviceImportLine.objects.filter(
        batch=batch, device_id__in=names, line__lte=batch.done_through
    ).exclude(outcome=LineOutcome.REJECTED)
    if batch.mode == ImportMode.UPSERT or batch.is_dry_run:
        # These have an index of their own.
        rows = rows.filter(changes__isnull=False)
    return dict(rows.values_list("device_id", "line"))


def _duplicate(number: int, name: str, other: int) -> Outcome:
    return Outcome(
        number,
        LineOutcome.REJECTED,
        name,
        "duplicate_in_file",
        f"line {other} of this file has the same deviceId",
    )


def _created(
    batch: DeviceImport, good: Stated, outcomes: list[Outcome]
) -> tuple[list[Outcome], list[str]]:
    """Register devices; of those with one id, the first that can be."""
    # The line at which this file brought a device in. What a dry run brought in is no
    # longer there to be found.
    here: dict[str, int] = {}
    if batch.is_dry_run:
        here = _earlier_lines(batch, [device.device_id for _, device in good])
        outcomes += [
            _duplicate(number, device.device_id, here[device.device_id])
            for number, device in good
            if device.device_id in here
        ]
        good = [each for each in good if each[1].device_id not in here]
    keys: list[str] = []
    refused: list[tuple[int, str, HotSwapError]] = []
    answers = register_devices(
        actor=batch.requested_by,
        devices=[device for _, device in good],
        origin={"import": str(batch.pk)},
    )
    for (number, device), answer in zip(good, answers, strict=True):
        name = device.device_id
        if isinstance(answer, HotSwapError):
            refused.append((number, name, answer))
        else:
            here[name] = number
            keys.append(f"{name},{answer}\r\n")
            outcomes.append(Outcome(number, LineOutcome.CREATED, name))
    exist = [
        name
        for _, name, error in refused
        if isinstance(error, DeviceExistsError) and name not in here
    ]
    if exist:
        here |= _earlier_lines(batch, exist)
    for number, name, error in refused:
        if isinstance(error, DeviceExistsError) and name in here:
            outcomes.append(_duplicate(number, name, here[name]))
        else:
            outcomes.append(_rejected(number, name, error))
    return outcomes, keys


def _rejected(number: int, name: str, error: HotSwapError) -> Outcome:
    return Outcome(number, LineOutcome.REJECTED, name, error.code, error.detail)


def _upserted(
    batch: DeviceImport, good: Stated, outcomes: list[Outcome]
) -> tuple[list[Outcome], list[str]]:
    """Register or change devices; of lines with one id, the first that is possible."""
    here = _earlier_lines(batch, {device.device_id for _, device in good})
    keys: list[str] = []
    while good:
        first: dict[str, tuple[int, StatedDevice]] = {}
        later = []
        for number, device in good:
            name = device.device_id
            if name in here:
                outcomes.append(_duplicate(number, name, here[name]))
            elif name in first:
                later.append((number, device))
            else:
                first[name] = number, device
        # Whoever is second had no chance but where the first was refused.
        good = later
        share_version_orders(device.model_name for _, device in first.values())
        known = locked_devices(first)
        old = [each for name, each in first.items() if name in known]
        new = [each for name, each in first.items() if name not in known]
        changed = change_devices(
            actor=batch.requested_by,
            stated=[device for _, device in old],
            known=known,
            acknowledged=batch.is_acknowledged,
            origin={"import": str(batch.pk)},
        )
        for (number, device), changes in zip(old, changed, strict=True):
            if isinstance(changes, HotSwapError):
                outcomes.append(_rejected(number, device.device_id, changes))
                continue
            here[device.device_id] = number
            outcome = LineOutcome.UPDATED if changes else LineOutcome.UNCHANGED
            outcomes.append(Outcome(number, outcome, device.device_id, changes=changes))
        registered = register_devices(
            actor=batch.requested_by,
            devices=[device for _, device in new],
            origin={"import": str(batch.pk)},
        )
        for (number, device), answer in zip(new, registered, strict=True):
            if isinstance(answer, HotSwapError):
                outcomes.append(_rejected(number, device.device_id, answer))
                continue
            here[device.device_id] = number
            keys.append(f"{device.device_id},{answer}\r\n")
            outcomes.append(Outcome(number, LineOutcome.CREATED, device.device_id))
    return outcomes, keys


def _keep_outcomes(batch: DeviceImport, outcomes: list[Outcome]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE devices_deviceimportline AS row SET
                raw = CASE WHEN %s THEN row.raw END,
                outcome = found.outcome, device_id = found.device_id,
                code = found.code, detail = found.detail,
                changes = found.changes::jsonb
            FROM unnest(%s::int[], %s::text[], %s::text[], %s::text[], %s::text[],
                        %s::text[])
                AS found (line, outcome, device_id, code, detail, changes)
            WHERE row.batch_id = %s AND row.line = found.line
            """,
            [
                batch.is_dry_run,
                [each.line for each in outcomes],
                [each.outcome.value for each in outcomes],
                [each.device_id for each in outcomes],
                [each.code for each in outcomes],
                [each.detail[:500] for each in outcomes],
                [_kept_changes(batch, each) for each in outcomes],
                batch.pk,
            ],
        )


def _kept_changes(batch: DeviceImport, outcome: Outcome) -> str | None:
    """Return what is kept of the differences: of a dry run all, else nothing."""
    if batch.is_dry_run:
        return json.dumps(
            [
                {"field": each.field, "from": each.before, "to": each.after}
                for each in outcome.changes
            ]
        )
    return "[]" if batch.mode == ImportMode.UPSERT else None


# --- Delivering the keys -----------------------------------------------------------


def _finished(import_id: UUID) -> DeviceImport:
    batch = (
        DeviceImport.objects.select_for_update(no_key=True).filter(pk=import_id).first()
    )
    if batch is None:
        raise ImportNotFoundError("there is no such import")
    if batch.status in OPEN_IMPORTS:
        raise ImportNotFinishedError(
            f"the import is {batch.status}: its keys can be fetched when it is done"
        )
    return batch


def fetch_keys(*, actor: User, import_id: UUID, now: datetime) -> bytes:
    """Return the keys of the devices that an import made, as CSV with a header.

    From the first time on they can be fetched again for 15 minutes.

    Raises:
        ImportNotFoundError, ImportNotFinishedError.
        KeysGoneError: they were delivered, or not fetched within 24 hours (410).
    """
    with transaction.atomic():
        batch = _finished(import_id)
        ends = batch.keys_end_at
        if ends is None or ends <= now:
            raise KeysGoneError(
                "the keys of this import were delivered or have expired: "
                "make a device a new one with POST /devices/{deviceId}/api-key"
            )
        if batch.keys_fetched_at is None:
            batch.keys_fetched_at = now
            batch.save(update_fields=["keys_fetched_at"])
        chunks = batch.key_chunks.order_by("pk").values_list("sealed", flat=True)
        keys = b"".join(
            unseal(bytes(sealed), purpose=IMPORT_KEYS_PURPOSE) for sealed in chunks
        )
        audit.record(
            actor=actor,
            verb="device-import.keys-fetched",
            object_kind="device-import",
            object_id=batch.pk,
            details={"keys": batch.created},
        )
    return KEYS_HEADER + keys


def erase_keys(*, actor: User, import_id: UUID) -> DeviceImport:
    """Erase the keys of an import, because the caller has them.

    Raises:
        ImportNotFoundError, ImportNotFinishedError.
    """
    with transaction.atomic():
        batch = _finished(import_id)
        if batch.keys_erased_at is None:
            _erase(batch, actor, timezone.now())
    return batch


def _erase(batch: DeviceImport, actor: User | None, now: datetime) -> None:
    DeviceImportKeys.objects.filter(batch=batch).delete()
    batch.keys_erased_at = now
    batch.save(update_fields=["keys_erased_at"])
    audit.record(
        actor=actor,
        verb="device-import.keys-erased",
        object_kind="device-import",
        object_id=batch.pk,
        details={"wereFetched": batch.keys_fetched_at is not None},
    )


def erase_due_keys(*, now: datetime) -> None:
    """Erase the keys and files of imports that have had their time."""
    due = DeviceImport.objects.filter(
        Q(finished_at__lte=now - settings.IMPORT_KEYS_KEPT)
        | Q(keys_fetched_at__lte=now - settings.IMPORT_KEYS_AGAIN),
        finished_at__isnull=False,
        keys_erased_at__isnull=True,
    )
    with transaction.atomic():
        for batch in due.select_for_update(skip_locked=True, no_key=True):
            if batch.is_dry_run:
                batch.lines.update(raw=None)
                batch.keys_erased_at = now
                batch.save(update_fields=["keys_erased_at"])
            else:
                _erase(batch, None, now)


def forget_imports(before: datetime, limit: int) -> int:
    """Forget the oldest imports that ended before a time; return how many.

    Args:
        limit: of lines; one import, which has `IMPORT_MAX_LINES` at most, goes whole.
    """
    old = DeviceImport.objects.filter(
        finished_at__lte=before, keys_erased_at__isnull=False
    ).order_by("finished_at")
    forgotten = lines = 0
    for batch in old[:limit]:
        # One statement for all of its lines, which nothing else refers to.
        lines += DeviceImportLine.objects.filter(batch=batch)._raw_delete("default")
        batch.delete()
        forgotten += 1
        if lines >= limit:
            break
    return forgotten
