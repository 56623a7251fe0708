"""Lines of an import, read by the rules of `POST /devices`."""

from collections.abc import Callable
from typing import Any

from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.fields import empty

from devices.api.serializers import DeviceInput
from devices.api.spreadsheets import MAX_LINE_BYTES, METADATA, TAG, TAGS, cells_of
from devices.choices import ImportFormat
from devices.services.imports import ReadLine
from devices.services.registry import NewDevice
from hotswap.common.api.errors import flat_errors
from hotswap.common.api.parsers import parse_json

MAX_REMEMBERED = 10_000


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


class LineReader:
    """Reads the lines of one file.

    The serializer of `POST /devices` is made once: making it costs more than using it.
    """

    def __init__(self, file_format: str, columns: list[str]) -> None:
        self._is_csv = file_format == ImportFormat.CSV
        self._columns = columns
        self._serializer = DeviceInput()
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
            first, *more = flat_errors(error.detail)
            where = first.attr.removeprefix("/") if first.attr else ""
            said = f"{where}: {first.detail}" if where else str(first.detail)
            if more:
                said += f" (and {len(more)} more)"
            return _refused(body, first.code, said)
        device = NewDevice(model_name=given.pop("model"), **given)
        return ReadLine(device, device.device_id)

    def _from_csv(self, raw: bytes) -> dict[str, Any]:
        """Turn a record into the body that `POST /devices` takes.

        Empty cells are left out. A cell of `tags` is `name=value;name=value`.
        """
        try:
            cells = cells_of(raw, len(self._columns))
        except ValueError as error:
            raise _LineError(*error.args) from None
        body: dict[str, Any] = {}
        tags: list[tuple[str, str]] = []
        for name, cell in zip(self._columns, cells, strict=True):
            if "\x00" in cell:
                raise _LineError("invalid_character", "NUL characters are not allowed")
            if not cell.strip():
                continue
            if name == TAGS:
                tags += _tags(cell)
            elif name.startswith(TAG):
                tags.append((name.removeprefix(TAG), cell))
            elif name == METADATA:
                body[METADATA] = _metadata(cell)
            else:
                body[name] = cell.strip()
        if tags:
            body[TAGS] = dict(tags)
            if len(body[TAGS]) < len(tags):
                raise _LineError("duplicate_key", "tags: a tag is there twice")
        return body


def _tags(cell: str) -> list[tuple[str, str]]:
    found = []
    for part in cell.split(";"):
        name, equals, value = part.partition("=")
        if not equals:
            raise _LineError(
                "invalid", f"tags: {part[:70]!r} is not of the form name=value"
            )
        found.append((name.strip(), value.strip()))
    return found


def _metadata(cell: str) -> Any:
    try:
        return parse_json(cell.encode())
    except ParseError as error:
        raise _LineError(
            str(error.detail.code),  # type: ignore[union-attr]
            f"metadata: {error.detail}",
        ) from None


def _refused(body: Any, code: str, detail: str) -> ReadLine:
    name = body.get("deviceId") if isinstance(body, dict) else None
    return ReadLine(None, name[:128] if isinstance(name, str) else "", code, detail)
