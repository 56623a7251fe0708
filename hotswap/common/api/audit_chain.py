"""Whether the audit trail is still what was sealed."""

from typing import Any

from cryptography.hazmat.primitives import serialization
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from hotswap.common import keyring
from hotswap.common.api.base import ApiView
from hotswap.common.api.serializers import CamelSerializer, StrictChoiceField
from hotswap.common.errors import FieldError, InvalidInputError
from hotswap.common.roles import Role
from hotswap.common.trail.chain import FindingKind, anchor_document
from hotswap.common.trail.verifier import Verification, verify

# Positions that one answer covers at most.
PART = 100_000
MAX_DIGITS = 15


class AnchorOutput(CamelSerializer):
    type = serializers.CharField()
    position = serializers.IntegerField()
    chain_hash = serializers.CharField(help_text="64 hex digits")
    at = serializers.CharField(help_text="to the microsecond, as it is signed")
    key_id = serializers.CharField()
    signature = serializers.CharField(help_text="base64 of Ed25519")


class FindingOutput(CamelSerializer):
    kind = StrictChoiceField(choices=[kind.value for kind in FindingKind])
    detail = serializers.CharField()
    position = serializers.IntegerField(allow_null=True)
    event_id = serializers.IntegerField(allow_null=True)


class ChainOutput(CamelSerializer):
    intact = serializers.BooleanField(help_text="nothing was found in this part")
    sealed_up_to = serializers.IntegerField(help_text="position of the last link")
    sealed_at = serializers.DateTimeField(allow_null=True)
    waiting = serializers.IntegerField(help_text="rows that are not sealed yet")
    checked_from = serializers.IntegerField()
    checked_to = serializers.IntegerField(
        help_text="below `checkedFrom` where nothing was to be checked"
    )
    next = serializers.IntegerField(
        allow_null=True, help_text="where the next part begins: `from` of the next call"
    )
    finding_count = serializers.IntegerField()
    findings = FindingOutput(many=True, help_text="the first hundred")
    anchors_compared = serializers.IntegerField()
    unread_buckets = serializers.ListField(
        child=serializers.CharField(),
        help_text="buckets whose anchors were not compared: they did not answer",
    )
    unproved_to = serializers.IntegerField(
        allow_null=True,
        help_text="position up to which only a key that was lost has vouched, if any",
    )
    anchor = AnchorOutput(allow_null=True, help_text="the newest in the database")
    public_key = serializers.CharField(help_text="PEM of the key that signs anchors")


def public_key_pem() -> str:
    """Return the public half of the key that signs anchors and evidence."""
    pem = keyring.audit_key().public_key()
    return pem.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def verification_output(found: Verification) -> dict[str, Any]:
    """Return a verification in the form of `ChainOutput`."""
    anchor = found.state.anchor
    public = keyring.audit_key().public_key()
    return {
        "intact": found.is_intact,
        "sealedUpTo": found.state.position,
        "sealedAt": found.state.sealed_at,
        "waiting": found.state.waiting,
        "checkedFrom": found.first,
        "checkedTo": found.last,
        "next": found.next,
        "findingCount": found.total,
        "findings": [
            {
                "kind": finding.kind.value,
                "detail": finding.detail,
                "position": finding.position,
                "eventId": finding.event_id,
            }
            for finding in found.findings
        ],
        "anchorsCompared": found.anchors,
        "unreadBuckets": list(found.unread_buckets),
        "unprovedTo": found.unproved_to,
        "anchor": None if anchor is None else anchor_document(anchor, public),
        "publicKey": public_key_pem(),
    }


class AuditChainView(ApiView):
    """Check the audit trail against its chain and the chain against its anchors."""

    roles = {"GET": Role.ADMIN}
    rates = {"GET": "EXPORTS_PER_MINUTE"}
    query_parameters = frozenset({"from"})

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "from",
                OpenApiTypes.INT,
                description=(
                    "The first position to check, 1 for all of the chain; one answer "
                    f"covers {PART:,} positions. Without it the check begins behind "
                    "the last anchor."
                ),
            )
        ],
        responses=ChainOutput,
    )
    def get(self, request: Request) -> Response:
        """Tell what was done to the trail: changed, removed, swapped, inserted rows."""
        found = verify(start=_first_position(request), limit=PART)
        return Response(verification_output(found))


def _first_position(request: Request) -> int | None:
    text = request.query_params.get("from")
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and int(text) > 0:
        return int(text)
    detail = "must be the number of a position, from 1 on"
    raise InvalidInputError(detail, errors=[FieldError("/from", "invalid", detail)])
