"""Charts of a deployment: how far its devices were, and how many of them proved."""

import json
from datetime import datetime, timedelta
from typing import Any, Final

from deployments.models import Deployment
from deployments.reads.adoption import firmware_adoption
from deployments.reads.exposure import firmware_exposure
from deployments.reads.history import progress_history
from firmware.models import Firmware
from hotswap.common.console.text import span_in_words

ADOPTION_SPAN: Final = timedelta(days=90)


def progress_charts(deployment: Deployment, now: datetime) -> dict[str, Any]:
    """Return what the charts draw, with a mark where each stage was opened."""
    moments = progress_history(deployment, now)
    opened = deployment.stages.filter(opened_at__isnull=False)
    marks = [
        {"at": _milliseconds(stage.opened_at), "label": stage.name}
        for stage in opened
        if stage.opened_at
    ]
    if deployment.rollback_started_at is not None:
        at = _milliseconds(deployment.rollback_started_at)
        marks.append({"at": at, "label": "rollback"})

    def series(label: str, tone: str, name: str) -> dict[str, Any]:
        return {
            "label": label,
            "tone": tone,
            "points": [
                [_milliseconds(each.at), getattr(each, name)] for each in moments
            ],
        }

    return {
        "has_history": any(each.offered for each in moments),
        "progress_chart": json.dumps(
            {
                "kind": "line",
                "unit": "devices",
                "marks": marks,
                "series": [
                    series("given the order", "blue", "offered"),
                    series("proved", "green", "proved"),
                    series("failed or sent back", "red", "failed"),
                ],
            }
        ),
        "rate_chart": json.dumps(
            {
                "kind": "line",
                "unit": "%",
                "max": 100,
                "marks": marks,
                "series": [
                    series("success rate", "green", "success_rate"),
                    {
                        "label": "gate",
                        "tone": "amber",
                        "points": [
                            [_milliseconds(each.at), deployment.health_threshold]
                            for each in moments
                        ],
                    },
                ],
            }
        ),
        "has_rate": any(each.success_rate is not None for each in moments),
        "as_of": f"{now:%H:%M:%S} UTC",
    }


def adoption_chart(firmware: Firmware, now: datetime) -> dict[str, Any]:
    """Return what the chart of the devices that run a firmware draws."""
    found = firmware_adoption(firmware, now, ADOPTION_SPAN)
    points = [[_milliseconds(each.at), each.devices] for each in found]
    series = [{"label": firmware.version, "tone": "blue", "points": points}]
    return {
        "has_adoption": bool(found),
        "adoption": json.dumps({"kind": "area", "unit": "devices", "series": series}),
        "reached": [
            (each, span_in_words(each.seconds_from_approval))
            for each in firmware_exposure(firmware).reached
            if each.seconds_from_approval is not None
        ],
        "as_of": f"{now:%H:%M:%S} UTC",
    }


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)
