"""Writing the stages of a plan and its targets, at the launch.

One statement writes all targets, whatever the size of the fleet.
"""

from typing import Any

from django.db import connection
from django.db.models import Count, F, Value
from django.db.models.functions import Coalesce

from deployments.models import Deployment, Stage, Target
from deployments.strategies.types import Fleet, Plan


def write_plan(
    deployment: Deployment,
    plan: Plan,
    judged: Any,
    regions: tuple[str, ...] = (),
    *,
    names_green: bool = False,
) -> Fleet:
    """Write the stages and, by one statement, all targets with their ranks.

    The rank is a hash of the device salted with the deployment, so that the canaries
    are not always the same devices, and the order is the same however often it is
    computed. Regions come before that, where their order matters, and the green half,
    where it is named.

    Returns:
        What was written, to be compared with what was planned for.
    """
    earlier = 0
    stages = []
    for stage in plan.stages:
        stages.append(
            Stage(
                deployment=deployment,
                number=stage.number,
                name=stage.name,
                boundary=stage.boundary,
                size=stage.boundary - earlier,
                wait_seconds=stage.wait.total_seconds(),
            )
        )
        earlier = stage.boundary
    Stage.objects.bulk_create(stages)
    green = ("is_green",) if names_green else ()
    chosen = (
        judged.filter(exclusion="")
        .order_by()
        .annotate(version=Coalesce(F("firmware_version"), Value("")))
        .values("id", "version", "firmware_checksum", "region", *green)
    )
    query, parameters = chosen.query.sql_with_params()
    boundaries = [stage.boundary for stage in plan.stages]
    first = "array_position(%s::varchar[], region), region," if regions else ""
    if names_green:
        first = "is_green DESC,"
    counted_green = "count(*) FILTER (WHERE is_green)" if names_green else "0"
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH ranked AS (
                SELECT chosen.*, row_number() OVER (
                    ORDER BY {first} hashtextextended(id::text || %s, 0), id
                ) AS rank
                FROM ({query}) AS chosen
            ), written AS (
                INSERT INTO deployments_target (
                    deployment_id, device_id, rank, stage_number, status, attempt,
                    rollback_attempt, from_version, from_checksum, error_code, message,
                    updated_at
                )
                SELECT %s, id, rank, width_bucket(rank::int - 1, %s::int[]) + 1,
                       'pending', 0, 0, version, firmware_checksum, '', '', %s
                FROM ranked
                -- In the order of the indexes, which then fill from left to right.
                ORDER BY id
            )
            SELECT count(*), {counted_green} FROM ranked
            """,
            [
                *([list(regions)] if regions else []),
                str(deployment.pk),
                *parameters,
                deployment.pk,
                boundaries,
                deployment.created_at,
            ],
        )
        written, green_count = cursor.fetchone()
    if names_green:
        return Fleet(written, green_count=green_count)
    if not regions:
        return Fleet(written)
    targets = Target.objects.filter(deployment=deployment).order_by()
    rows = targets.values_list("device__region").annotate(Count("pk"))
    return Fleet.of_regions(dict(rows), regions)
