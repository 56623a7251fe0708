"""Send the spans of an order to a collector (OTLP over HTTP, as JSON).

Rules:
- Only where `otlp_endpoint` is configured, and the order's trace is sampled or the
  order has failed.
- They are sent once, before the last report, which says whether a collector has taken
  them; if not, the server derives them from the reports.
- Nothing waits for a collector longer than a moment, and none is tried again.
- The ids are those that the server would derive: sent twice, a span is the same.
"""

import hashlib
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from devices.agent.protocol import Order

logger = logging.getLogger(__name__)

# By the names of the durations. The health check ends on the server, which tells of it.
NAMES: Final = {
    "download": "firmware.download",
    "verify": "firmware.verify",
    "install": "firmware.install",
    "reboot": "device.reboot",
}
WAIT_SECONDS: Final = 2.0
STATUS_ERROR: Final = 2


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an order that was carried out; it may be one of several alike."""

    name: str
    started_at: datetime
    seconds: float

    @property
    def ended_at(self) -> datetime:
        """Give when it was over."""
        return self.started_at + timedelta(seconds=self.seconds)


@dataclass(frozen=True, slots=True)
class SpanExporter:
    """Sends to one collector, for one device."""

    endpoint: str
    device_id: str

    def send(self, order: Order, steps: Sequence[Step], *, error: str = "") -> bool:
        """Send what was done of an order; give whether the collector took it.

        Args:
            order: carries the context to go on with.
            steps: what was done, in this order.
            error: the code of the failure, "" if there was none.
        """
        is_sampled = order.traceparent.endswith(("1", "3"))
        spans = spans_of(order, self.device_id, steps, error)
        if not order.traceparent or not spans or not (is_sampled or error):
            return False
        sent = {
            "resource": {"attributes": _attributes({"service.name": "hotswap-agent"})},
            "scopeSpans": [{"scope": {"name": "devices.agent"}, "spans": spans}],
        }
        request = urllib.request.Request(  # noqa: S310 - checked with the configuration
            f"{self.endpoint.rstrip('/')}/v1/traces",
            data=json.dumps({"resourceSpans": [sent]}).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:  # noqa: S310
                return bool(200 <= answer.status < 300)
        except (OSError, ValueError) as error_of_it:
            logger.warning("spans not sent", extra={"reason": str(error_of_it)})
            return False


def spans_of(
    order: Order, device_id: str, steps: Sequence[Step], error: str
) -> list[dict[str, Any]]:
    """Give a span for each kind of step, from its first start to its last end."""
    found: dict[str, tuple[datetime, datetime]] = {}
    for step in steps:
        name = NAMES.get(step.name)
        if name is not None:
            start, end = found.get(name, (step.started_at, step.ended_at))
            found[name] = (min(start, step.started_at), max(end, step.ended_at))
    attributes = {
        "hotswap.device.id": device_id,
        "hotswap.order.id": order.update_id,
        "hotswap.order.kind": order.action.value,
        "hotswap.firmware.version": order.firmware.version,
        **(
            {"hotswap.deployment.id": order.deployment_id}
            if order.deployment_id
            else {}
        ),
    }
    spans = [
        {
            "traceId": order.traceparent[3:35],
            "spanId": span_id_of(order.update_id, name),
            "parentSpanId": order.traceparent[36:52],
            "name": name,
            "kind": 1,
            "startTimeUnixNano": str(_nanoseconds(start)),
            "endTimeUnixNano": str(_nanoseconds(end)),
            "attributes": _attributes(attributes),
            "status": {},
        }
        for name, (start, end) in found.items()
    ]
    if error and spans:
        # What came last is what it failed in.
        spans[-1]["status"] = {"code": STATUS_ERROR, "message": error}
    return spans


def span_id_of(update_id: str, name: str) -> str:
    """Give the id of the span of one phase of one order, as the server derives it."""
    return hashlib.sha256(f"{update_id} {name}".encode()).hexdigest()[:16]


def _nanoseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000) * 1000


def _attributes(values: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"key": name, "value": {"stringValue": value}} for name, value in values.items()
    ]
