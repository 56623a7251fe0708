"""Give a pack out: audited, with the trail as of this moment."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.http import StreamingHttpResponse
from django.utils import timezone

from hotswap.common import audit, keyring
from hotswap.common.evidence.pack import EvidenceFile, evidence_pack
from hotswap.common.evidence.trail import trail_files
from hotswap.common.models import User


def export_evidence(
    *,
    actor: User,
    kind: str,
    object_id: object,
    subject: dict[str, Any],
    files: Iterable[EvidenceFile],
) -> Iterator[bytes]:
    """Write into the trail that evidence goes out, and give the bytes of the pack.

    Args:
        kind: of the object, as the trail calls it.
        subject: what names it in the index.
        files: are read while the pack is sent.
    """
    now = timezone.now()
    audit.record(
        actor=actor,
        verb=f"{kind}.evidence-exported",
        object_kind=kind,
        object_id=object_id,
    )
    of_trail = trail_files(object_kind=kind, object_id=str(object_id), now=now)
    return evidence_pack(
        kind=kind,
        subject=subject,
        files=(*files, *of_trail),
        key=keyring.audit_key(),
        now=now,
    )


def evidence_response(name: str, pieces: Iterator[bytes]) -> StreamingHttpResponse:
    """Send a pack as a file, while it is written."""
    return StreamingHttpResponse(
        pieces,
        content_type="application/zip",
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="evidence-{name}.zip"',
        },
    )


def plain(value: Any) -> Any:
    """Return a value with times and the like as JSON has them."""
    return json.loads(json.dumps(value, cls=DjangoJSONEncoder))


def person(user: User | None) -> dict[str, str] | None:
    """Name a person as the trail does, and as they are called now."""
    if user is None:
        return None
    return {"pseudonym": str(user.pseudonym), "name": user.username}
