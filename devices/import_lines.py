"""Lines of an import, read by the rules of `POST /devices`."""

from collections.abc import Callable
from typing import Any

from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.fields import empty

from devices.cells import read_pairs
from devices.choices import ImportFormat, ImportMode
from devices.inputs import DeviceInput
from devices.services.imports import ReadLine
from devices.services.registry import StatedDevice
from devices.spreadsheets import (
    ENABLED,
    IGNORED_COLUMNS,
    MAX_LINE_BYTES,
    METADATA,
    TAG,
    TAGS,
    cells_of,
)
from hotswap.common.api.errors import flat_errors, summary_of
from hotswap.common.api.parsers import parse_json
from hotswap.common.api.serializers import StrictBooleanField, StrictCharField
from hotswap.common.csv_cells import unguarded

MAX_REMEMBERED = 10_000
TRUTHS = {"true": True, "false": False}
MISSING = "missing in this line"
MISSING_CODES = ("required", "blank", "null")


class _LineError(ValueError):
    """Why a line is no device: code and sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def _remembering(validate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Validate a text that was found good before without looking at it again.

    The lines of a file name few models, regions, versions and tags.
    """
    good: dict[str, Any] = {}

    def remembered(data: Any = empty) -> Any:
        if not isinstance(data, str):
            return validate(data)
        if data not in good:
            found = validate(data)
            if len(good) >= MAX_REMEMBERED:
                good.clear()
            good[data] = found
        return good[data]

    return remembered


class DeviceLine(DeviceInput):
    """A new device, as `POST /devices` takes it, disabled if it says so."""

    enabled = StrictBooleanField(required=False)


class KnownDeviceLine(DeviceLine):
    """A device that may be known: what is left out stays as it is."""

    model = StrictCharField(max_length=64, required=False)


class LineReader:
    """Reads the lines of one file.

    The serializer of `POST /devices` is made once: making it costs more than using it.
    """

    def __init__(
        self, file_format: str, columns: list[str], mode: str = ImportMode.CREATE
    ) -> None:
        self._is_csv = file_format == ImportFormat.CSV
        self._columns = columns
        # Set by themselves, tags leave others alone.
        self._sets_single_tags = False
        is_upsert = mode == ImportMode.UPSERT
        self._serializer = KnownDeviceLine() if is_upsert else DeviceLine()
        fields: Any = self._serializer.fields
        for field in (
            fields["model"],
            fields["region"],
            fields["firmwareVersion"],
            fields["tags"].child,
        ):
            field.run_validation = _remembering(field.run_validation)

    def read(self, raw: bytes | None) -> ReadLine:
        """Read a line; None stands for one that is too long."""
        body: Any = None
        self._sets_single_tags = False
        try:
            if raw is None:
                raise _LineError(
                    "line_too_long", f"a line has {MAX_LINE_BYTES} bytes at most"
                )
            body = self._from_csv(raw) if self._is_csv else parse_json(raw)
            given = self._serializer.run_validation(body)
        except _LineError as error:
            return _refused(body, error.code, error.detail)
        except ParseError as error:
            return _refused(body, str(error.detail.code), str(error.detail))  # type: ignore[union-attr]
        except ValidationError as error:
            errors = flat_errors(error.detail)
            named = [
                {
                    "pointer": x.attr or "",
                    "detail": MISSING if x.code in MISSING_CODES else x.detail,
                }
                for x in errors
            ]
            text = summary_of(named, len(named))
            return _refused(body, errors[0].code, text)
        device = StatedDevice(
            model_name=given.pop("model", None),
            keeps_other_tags=self._sets_single_tags,
            **given,
        )
        return ReadLine(device, device.device_id)

    def _from_csv(self, raw: bytes) -> dict[str, Any]:
        """Turn a record into the body that `POST /devices` takes.

        Empty cells are left out. A cell of `tags` is `name=value;name=value`, or JSON.
        """
        try:
            cells = cells_of(raw, len(self._columns))
        except ValueError as error:
            raise _LineError(*error.args) from None
        body: dict[str, Any] = {}
        tags: list[tuple[str, Any]] = []
        sets_all_tags = False
        for name, cell in zip(self._columns, cells, strict=True):
            if "\x00" in cell:
                raise _LineError("invalid_character", "NUL characters are not allowed")
            if not cell.strip():
                continue
            if name == TAGS:
                sets_all_tags = True
                tags += _tags(unguarded(cell.strip()))
            elif name.startswith(TAG):
                tags.append((name.removeprefix(TAG), unguarded(cell)))
            elif name == METADATA:
                body[METADATA] = _map(METADATA, cell)
            elif name == ENABLED:
                text = unguarded(cell.strip())
                body[ENABLED] = TRUTHS.get(text.casefold(), text)
            elif name not in IGNORED_COLUMNS:
                body[name] = unguarded(cell.strip())
        if tags or sets_all_tags:
            self._sets_single_tags = not sets_all_tags
            body[TAGS] = dict(tags)
            if len(body[TAGS]) < len(tags):
                raise _LineError("duplicate_key", "tags: a tag is there twice")
        return body


def _tags(cell: str) -> list[tuple[str, Any]]:
    if cell.lstrip().startswith("{"):
        return list(_map(TAGS, cell).items())
    try:
        return list[tuple[str, Any]](read_pairs(cell))
    except ValueError as error:
        raise _LineError("invalid", f"tags: {error}") from None


def _map(name: str, cell: str) -> Any:
    try:
        return parse_json(cell.encode())
    except ParseError as error:
        raise _LineError(
            str(error.detail.code),  # type: ignore[union-attr]
            f"{name}: {error.detail}",
        ) from None


def _refused(body: Any, code: str, detail: str) -> ReadLine:
    name = body.get("deviceId") if isinstance(body, dict) else None
    return ReadLine(None, name[:128] if isinstance(name, str) else "", code, detail)
