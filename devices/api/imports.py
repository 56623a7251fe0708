"""Routes of imports: a file of devices in, results and keys out."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.http import HttpResponse, UnreadablePostError
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ParseError, UnsupportedMediaType, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from devices.api.views import ACKNOWLEDGE
from devices.choices import (
    ACTIONS,
    ImportFormat,
    ImportMode,
    ImportStatus,
    LineAction,
    LineOutcome,
)
from devices.exceptions import ImportNotFoundError
from devices.import_files import PIECE_BYTES, ReceivedFile, keys_file, take_file_in
from devices.models import DeviceImport, DeviceImportLine
from devices.services import imports
from devices.services.imports import ImportOptions
from devices.spreadsheets import CHARACTER_SETS
from hotswap.common.api.base import ApiView, ListView, acting_person
from hotswap.common.api.filters import PAGE_PARAMETERS
from hotswap.common.api.idempotency import idempotent
from hotswap.common.api.pagination import (
    CURSOR_SCHEMA,
    PAGE_SIZE_SCHEMA,
    KeysetPagination,
)
from hotswap.common.api.parsers import drain
from hotswap.common.api.serializers import CamelSerializer, StrictChoiceField
from hotswap.common.body_timeouts import body_failure
from hotswap.common.errors import TooLargeError
from hotswap.common.roles import Role

FORMATS = {
    "text/csv": ImportFormat.CSV,
    "application/x-ndjson": ImportFormat.NDJSON,
}


# What else browsers and tools say of a CSV file; it is read as one.
ALIASES = dict.fromkeys(
    ("application/csv", "application/vnd.ms-excel", "text/plain"), ImportFormat.CSV
)


FROM_TO = ("from", "to")


def _format_of(request: Request) -> tuple[ImportFormat, str | None]:
    """Return what the sender says of its body: format and character set."""
    text = request.META.get("CONTENT_TYPE", "")
    media_type, *others = (part.strip().lower() for part in text.split(";"))
    parameters = {
        name.strip(): value.strip().strip('"')
        for name, _, value in (part.partition("=") for part in others if part)
    }
    file_format = (FORMATS | ALIASES).get(media_type)
    charset = parameters.pop("charset", None)
    is_csv = file_format is ImportFormat.CSV
    if is_csv and parameters.get("header") == "present":
        del parameters["header"]
    is_known = charset in ((None, *CHARACTER_SETS) if is_csv else (None, "utf-8"))
    coding = request.headers.get("Content-Encoding", "identity").lower()
    if file_format is None or parameters or not is_known or coding != "identity":
        raise UnsupportedMediaType(
            text,
            detail="send CSV (text/csv, with a header, in UTF-8 unless charset says "
            f"one of {', '.join(CHARACTER_SETS)}) or JSON lines "
            "(application/x-ndjson, in UTF-8), not compressed; save a workbook as CSV",
        )
    return file_format, charset


@contextmanager
def received_file(request: Request) -> Iterator[ReceivedFile]:
    """Take the body in while it arrives; the file is gone when the block ends.

    It lies on disk first, so that a slow sender holds no transaction open.

    Raises:
        UnsupportedMediaType: neither CSV nor NDJSON (415).
        TooLargeError: more than the installation takes (413).
        ParseError: the body ended before it was complete.
    """
    file_format, charset = _format_of(request)
    limit = settings.IMPORT_MAX_BYTES
    expected = int(request.META.get("CONTENT_LENGTH") or 0)
    digest = hashlib.sha256()
    stream: Any = request._request
    with tempfile.TemporaryFile(prefix="hotswap-import-") as file:
        received = 0
        try:
            while received <= limit and expected <= limit:
                piece = stream.read(PIECE_BYTES)
                if not piece:
                    break
                received += len(piece)
                digest.update(piece)
                file.write(piece)
            else:
                drain(stream)
                raise TooLargeError(f"a file may have {limit} bytes at most")
        except UnreadablePostError:
            if body_failure(request._request) is not None:
                raise
            received = -1
        if received < expected:
            raise ParseError("the body ended before it was complete", code="incomplete")
        file.seek(0)
        yield ReceivedFile(file, file_format, digest.hexdigest(), charset)


class LineChangeOutput(CamelSerializer):
    """A difference; null where the device has, or would have, nothing."""

    field = serializers.CharField(
        help_text="model, region, enabled, metadata, or tag:NAME"
    )

    def get_fields(self) -> dict[str, Any]:
        # `from` is a word of the language.
        values = {name: serializers.JSONField() for name in FROM_TO}
        return super().get_fields() | values


class ImportLineOutput(CamelSerializer):
    line = serializers.IntegerField()
    device_id = serializers.SerializerMethodField(method_name="get_device_id")
    outcome = StrictChoiceField(
        choices=LineOutcome.choices,
        required=False,
        help_text="what became of it; not in a dry run",
    )
    action = StrictChoiceField(
        choices=LineAction.choices,
        required=False,
        help_text="what would become of it; in a dry run only",
    )
    changes = LineChangeOutput(many=True, required=False, help_text="in a dry run only")
    code = serializers.CharField(required=False)
    detail = serializers.CharField(required=False)

    def get_device_id(self, line: DeviceImportLine) -> str | None:
        return line.device_id or None

    def to_representation(self, instance: DeviceImportLine) -> Any:
        shown: dict[str, Any] = {
            "line": instance.line,
            "deviceId": self.get_device_id(instance),
        }
        if self.context["is_dry_run"]:
            shown["action"] = ACTIONS[LineOutcome(instance.outcome)].value
            shown["changes"] = instance.changes or []
        else:
            shown["outcome"] = instance.outcome
        if instance.outcome == LineOutcome.REJECTED:
            shown |= {"code": instance.code, "detail": instance.detail}
        return shown


class ImportOutput(CamelSerializer):
    id = serializers.UUIDField()
    format = StrictChoiceField(choices=ImportFormat.choices)
    mode = StrictChoiceField(choices=ImportMode.choices)
    dry_run = serializers.BooleanField(source="is_dry_run")
    status = StrictChoiceField(choices=ImportStatus.choices)
    total = serializers.IntegerField(help_text="lines that are not empty")
    created = serializers.IntegerField()
    updated = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    rejected = serializers.IntegerField()
    failure = serializers.CharField(help_text="why it is Failed")
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    keys_end_at = serializers.DateTimeField(
        allow_null=True, help_text="until when the keys can be fetched; null: not"
    )


class ImportResultsOutput(ImportOutput):
    count = serializers.IntegerField(
        required=False, help_text="Results in all, with `?count=true`."
    )
    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = ImportLineOutput(many=True)


def _options(request: Request) -> ImportOptions:
    """Read what is to be done with the file.

    Raises:
        ValidationError: a parameter has another value than its few.
    """
    given = {}
    for name, values in (
        ("mode", ImportMode.values),
        ("dryRun", ["false", "true"]),
        ("acknowledge", ["audience"]),
    ):
        given[name] = request.query_params.get(name)
        if given[name] not in (None, *values):
            raise ValidationError(
                {name: [f"must be {' or '.join(values)}"]}, code="invalid_choice"
            )
    return ImportOptions(
        mode=ImportMode(given["mode"] or ImportMode.CREATE),
        is_dry_run=given["dryRun"] == "true",
        is_acknowledged=given["acknowledge"] is not None,
    )


class ImportDevicesView(ApiView):
    roles = {"POST": Role.ADMIN}
    rates = {"POST": "IMPORTS_PER_MINUTE"}
    query_parameters = frozenset({"mode", "dryRun", "acknowledge"})

    @extend_schema(
        request=dict.fromkeys(FORMATS, OpenApiTypes.STR),
        responses={202: ImportOutput},
        parameters=[
            OpenApiParameter(
                "mode",
                enum=ImportMode.values,
                description="`upsert` changes devices that are registered already; "
                "what a line omits stays as it is.",
            ),
            OpenApiParameter(
                "dryRun",
                type=bool,
                description="Tell of each line what it would change, and change "
                "nothing.",
            ),
            ACKNOWLEDGE,
        ],
    )
    def post(self, request: Request) -> Response:
        """Register the devices of a file, each line by itself, in the background.

        CSV: the first line names the columns `deviceId, model, region, enabled,
        firmwareVersion, tags, metadata, tag:NAME`. NDJSON: each line is a body of
        `POST /devices`, with `enabled` if need be.
        """
        options = _options(request)
        with received_file(request) as received:
            text = f"{received.digest} {options}".encode()
            self.body_digest = hashlib.sha256(text).hexdigest()
            return self._begin(request, received, options)

    @idempotent
    def _begin(
        self, request: Request, received: ReceivedFile, options: ImportOptions
    ) -> Response:
        batch = take_file_in(
            actor=acting_person(request), received=received, options=options
        )
        return Response(
            ImportOutput(batch).data,
            status=202,
            headers={"Location": f"/api/v1/device-imports/{batch.pk}"},
        )

    post.is_idempotent = True  # type: ignore[attr-defined]


class ImportsView(ListView):
    """All imports of the last 30 days, newest first."""

    roles = {"GET": Role.ADMIN}
    queryset = DeviceImport.objects.all()
    output_class = ImportOutput
    ordering = "-created_at"


class LinesPagination(KeysetPagination):
    ordering = ("line",)


class ImportView(ApiView):
    """How far an import has come, and what became of each line so far."""

    roles = {"GET": Role.ADMIN}
    query_parameters = frozenset({*PAGE_PARAMETERS, "outcome"})

    @extend_schema(
        responses=ImportResultsOutput,
        parameters=[
            OpenApiParameter("outcome", enum=LineOutcome.values),
            OpenApiParameter("cursor", type=CURSOR_SCHEMA),
            OpenApiParameter("pageSize", type=PAGE_SIZE_SCHEMA),
            OpenApiParameter("count", type=bool),
        ],
    )
    def get(self, request: Request, import_id: Any) -> Response:
        batch = DeviceImport.objects.filter(pk=import_id).first()
        if batch is None:
            raise ImportNotFoundError("there is no such import")
        outcome = request.query_params.get("outcome")
        if outcome not in (None, *LineOutcome.values):
            raise ValidationError(
                {"outcome": [f"must be one of {', '.join(LineOutcome.values)}"]},
                code="invalid_choice",
            )
        lines = DeviceImportLine.objects.filter(batch=batch)
        if outcome is None:
            lines = lines.filter(line__lte=batch.done_through)
        else:
            lines = lines.filter(outcome=outcome)
        paginator = LinesPagination()
        page = paginator.paginate_queryset(lines, request, self) or []
        results = paginator.get_paginated_response(
            ImportLineOutput(
                page, many=True, context={"is_dry_run": batch.is_dry_run}
            ).data
        )
        return Response({**ImportOutput(batch).data, **results.data})


class ImportKeysView(ApiView):
    roles = {"GET": Role.ADMIN, "DELETE": Role.ADMIN}

    @extend_schema(responses={(200, "text/csv"): OpenApiTypes.STR})
    def get(self, request: Request, import_id: Any) -> HttpResponse:
        """Fetch the keys of the devices that were created, as a CSV file.

        A download may break off: for 15 minutes after the first they can be fetched
        again, then they are erased. DELETE erases them at once.
        """
        return keys_file(acting_person(request), import_id)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, import_id: Any) -> Response:
        """Erase the keys, because they have arrived."""
        imports.erase_keys(actor=acting_person(request), import_id=import_id)
        return Response(status=204)
