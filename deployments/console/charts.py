"""Charts of a deployment: how far its devices were, and how many of them proved."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import cycle
from typing import Any, Final

from deployments.models import Deployment
from deployments.reads.adoption import firmware_adoption
from deployments.reads.exposure import firmware_exposure
from deployments.reads.history import progress_history
from firmware.models import Firmware
from health.services.history import MeanPoint, mean_history
from health.triggers import Trigger, by_unit
from hotswap.common.console.text import span_in_words

ADOPTION_SPAN: Final = timedelta(days=90)
# Of larger deployments those that were first in line stand for all.
HEALTH_DEVICES: Final = 50
HEALTH_POINTS: Final = 120
# How long before and after a deployment its devices are looked at, as a share of it.
HEALTH_MARGIN: Final = 0.1
HEALTH_TONES: Final = ("blue", "amber", "red", "grey")


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
        **_health_chart(deployment, marks, now),
        "as_of": f"{now:%H:%M:%S} UTC",
    }


def _health_chart(
    deployment: Deployment, marks: list[dict[str, Any]], now: datetime
) -> dict[str, Any]:
    """Return what the chart of the devices' health draws: before, during and after."""
    if deployment.started_at is None:
        return {}
    devices = list(
        deployment.targets.filter(exposed_at__isnull=False)
        .order_by("rank")
        .values_list("device_id", flat=True)[:HEALTH_DEVICES]
    )
    end = deployment.finished_at or now
    margin = max(timedelta(minutes=2), (end - deployment.started_at) * HEALTH_MARGIN)
    points = mean_history(
        devices=devices,
        since=deployment.started_at - margin,
        until=min(now, end + margin),
        points=HEALTH_POINTS,
    )
    return {
        "has_health": bool(points),
        "health_devices": len(devices),
        "health_charts": [
            {"unit": unit, "chart": json.dumps(chart)}
            for unit, triggers in by_unit()
            if (chart := _measure_chart(unit, triggers, points, marks))["series"]
        ],
    }


def _measure_chart(
    unit: str,
    triggers: Sequence[Trigger],
    points: Sequence[MeanPoint],
    marks: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return what the chart of the measures that are read in one unit draws."""
    series = [
        {
            "label": f"mean {each.label}",
            "tone": tone,
            "points": [
                [_milliseconds(point.at), round(value * each.scale, 2)]
                for point in points
                if (value := point.measures.get(each.name)) is not None
            ],
        }
        for each, tone in zip(triggers, cycle(HEALTH_TONES), strict=False)
    ]
    return {
        "kind": "line",
        "unit": unit,
        **({"max": 100} if unit == "%" else {}),
        "marks": marks,
        "series": [each for each in series if each["points"]],
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
