"""The facts of a deployment: counts by stage, read live and exact."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import (
    Avg,
    Count,
    DurationField,
    ExpressionWrapper,
    F,
    Q,
    Value,
)

from deployments.choices import (
    OrderKind,
    StageStatus,
    TargetStatus,
    UpdateStatus,
)
from deployments.models import Deployment, Stage, Target, Update
from deployments.rules.codes import FETCH_ERRORS, NEUTRAL_CODES
from deployments.strategies import types
from deployments.strategies.blue_green import BLUE_STAGE, GREEN_STAGE
from deployments.strategies.holds import SWITCH, UPDATE_BLUE, UPDATE_GREEN
from deployments.strategies.registry import STRATEGIES

T = TargetStatus
JUDGED_FAILED = (T.FAILED, T.ROLLING_BACK, T.ROLLED_BACK)
SETTLED = (T.SUCCESS, T.FAILED, T.ROLLED_BACK, T.SKIPPED, T.CANCELLED)
# Where the fleets of a blue-green deployment may be held; others have no rule for it.
OPENING_POINTS = {GREEN_STAGE: UPDATE_GREEN, BLUE_STAGE: UPDATE_BLUE}
PASSING_POINTS = {GREEN_STAGE: SWITCH}
RECENT_DEPLOYMENTS = 5
MEASURED_UPDATES = 1000


@dataclass(slots=True)
class StageCounts:
    """One stage in numbers."""

    by_status: dict[str, int] = field(
        default_factory=lambda: {str(status): 0 for status in TargetStatus}
    )
    exposed: int = 0
    exposed_settled: int = 0
    unexposed_pending: int = 0
    neutral: int = 0
    # Those whose last attempt failed on the way of the image: how many of them gave up,
    # and how many there are by code, given up or not.
    unreached_failed: int = 0
    fetch_errors: dict[str, int] = field(default_factory=dict)
    # Taken out by an operator, and of those the ones that went or are to go back.
    withdrawn: int = 0
    withdrawn_failed: int = 0

    @property
    def total(self) -> int:
        return sum(self.by_status.values())

    @property
    def succeeded(self) -> int:
        return self.by_status[T.SUCCESS]

    @property
    def failed(self) -> int:
        gone = sum(self.by_status[status] for status in JUDGED_FAILED)
        return gone - self.withdrawn_failed

    @property
    def evidence_against(self) -> int:
        """Devices that failed on the image, or may have."""
        return self.failed - self.unreached_failed

    @property
    def success_rate(self) -> float | None:
        """Proved devices as a percent of those whose outcome is known."""
        judged = self.succeeded + self.failed
        return 100 * self.succeeded / judged if judged else None

    @property
    def percent_complete(self) -> float:
        """Devices with nothing left to do as a percent of all."""
        done = sum(self.by_status[status] for status in SETTLED)
        return 100 * done / self.total if self.total else 0.0

    def add(self, other: "StageCounts") -> None:
        for status, count in other.by_status.items():
            self.by_status[status] += count
        self.exposed += other.exposed
        self.exposed_settled += other.exposed_settled
        self.unexposed_pending += other.unexposed_pending
        self.neutral += other.neutral
        self.unreached_failed += other.unreached_failed
        for code, count in other.fetch_errors.items():
            self.fetch_errors[code] = self.fetch_errors.get(code, 0) + count
        self.withdrawn += other.withdrawn
        self.withdrawn_failed += other.withdrawn_failed


def count_stages(deployment: Deployment) -> dict[int, StageCounts]:
    """Count the targets of each stage, by one statement."""
    return count_stages_of([deployment.pk])[deployment.pk]


def count_stages_of(
    deployment_ids: Collection[UUID],
) -> dict[UUID, dict[int, StageCounts]]:
    """Count the targets of each stage of some deployments, by one statement."""
    rows = (
        Target.objects.filter(deployment__in=deployment_ids)
        .values("deployment", "stage_number", "status", "error_code", "is_withdrawn")
        .annotate(number=Count("*"), exposed=Count("exposed_at"))
        .order_by()
    )
    found: dict[UUID, dict[int, StageCounts]] = {pk: {} for pk in deployment_ids}
    for row in rows:
        stages = found[row["deployment"]]
        status, code, number = row["status"], row["error_code"], row["number"]
        # Nobody will ever know how these would have ended, order or not.
        is_erased = status == T.CANCELLED and code == "erased"
        is_neutral = is_erased or row["is_withdrawn"]
        exposed = 0 if is_neutral else row["exposed"]
        counts = stages.setdefault(row["stage_number"], StageCounts())
        counts.by_status[status] += number
        counts.exposed += exposed
        if status in SETTLED:
            counts.exposed_settled += exposed
        if status == T.PENDING:
            counts.unexposed_pending += number - exposed
        if exposed and code in FETCH_ERRORS and status in (T.PENDING, T.FAILED):
            counts.fetch_errors[code] = counts.fetch_errors.get(code, 0) + exposed
            counts.unreached_failed += exposed if status == T.FAILED else 0
        if row["is_withdrawn"]:
            counts.withdrawn += number
            counts.withdrawn_failed += number if status in JUDGED_FAILED else 0
        if is_neutral:
            counts.neutral += number
        elif status in (T.SKIPPED, T.CANCELLED) and code in NEUTRAL_CODES:
            counts.neutral += number - exposed
    return found


def total_of(stages: dict[int, StageCounts]) -> StageCounts:
    """Add all stages up."""
    total = StageCounts()
    for counts in stages.values():
        total.add(counts)
    return total


def plan_of(deployment: Deployment, stages: list[Stage]) -> types.Plan:
    """Read the plan back from its rows."""
    in_flight = STRATEGIES[deployment.strategy].in_flight(deployment.parameters)
    return types.Plan(
        tuple(
            types.Stage(
                stage.number,
                stage.name,
                stage.boundary,
                timedelta(seconds=stage.wait_seconds),
            )
            for stage in stages
        ),
        in_flight,
        deployment.require_approval_per_stage,
        hold_rule_of(deployment),
        opening_points=OPENING_POINTS,
        passing_points=PASSING_POINTS,
    )


def hold_rule_of(deployment: Deployment) -> types.HoldRule | None:
    return STRATEGIES[deployment.strategy].hold(deployment.parameters)


def holds_of(deployment: Deployment) -> dict[str, types.HoldFacts]:
    """Return the holds that have begun, by their phase."""
    if hold_rule_of(deployment) is None:
        return {}
    return {
        hold.phase: types.HoldFacts(hold.until, hold.ended_at is not None)
        for hold in deployment.holds.all()
    }


def gate_of(deployment: Deployment) -> types.Gate:
    """Return the thresholds that its stages must meet."""
    thresholds = deployment.thresholds
    return types.Gate(
        health_threshold_percent=deployment.health_threshold,
        rollback_threshold_percent=min(
            thresholds.success_rate, deployment.health_threshold
        ),
        minimum_sample=thresholds.minimum_sample,
        minimum_exposure_percent=thresholds.minimum_exposure,
        pauses_on_warning=deployment.on_warning == "pause",
    )


@dataclass(frozen=True, slots=True)
class OfflineCounts:
    """Proved devices of a stage that are not heard: for good, and perhaps not."""

    silent: int = 0
    unheard: int = 0


def count_silence(
    deployment: Deployment,
    stages: list[Stage],
    now: datetime,
    awake_since: datetime,
) -> dict[int, OfflineCounts]:
    """Count the proved devices that are not heard now, where a gate could open.

    What the server itself slept through is not held against a device: it has its whole
    time again from there, and the gate waits for it.
    """
    due = [
        stage.number
        for stage in stages
        if stage.status == StageStatus.OPEN
        and stage.settled_at is not None
        and stage.settled_at + timedelta(seconds=stage.wait_seconds) <= now
    ]
    if not due:
        return {}
    allowed = ExpressionWrapper(
        F("device__state__online_until") - F("device__state__last_seen_at"),
        output_field=DurationField(),
    )
    rows = (
        Target.objects.alias(allowed=allowed)
        .filter(
            deployment=deployment,
            stage_number__in=due,
            status=T.SUCCESS,
            device__erased_at__isnull=True,
            device__state__online_until__lte=now,
        )
        .values("stage_number")
        .annotate(
            all=Count("pk"),
            silent=Count("pk", filter=Q(allowed__lte=Value(now - awake_since))),
        )
        .order_by()
    )
    return {
        row["stage_number"]: OfflineCounts(row["silent"], row["all"] - row["silent"])
        for row in rows
    }


@dataclass(frozen=True, slots=True)
class Facts:
    """What `decide` is asked with, read at one moment.

    Attributes:
        progress: of each of the stages, in their order.
        settled: the open stages whose evidence is complete, and was not until now.
    """

    stages: list[Stage]
    plan: types.Plan
    gate: types.Gate
    counts: dict[int, StageCounts]
    progress: tuple[types.StageProgress, ...]
    settled: tuple[tuple[Stage, types.StageProgress], ...]


def read_facts(deployment: Deployment) -> Facts:
    """Read the stages of a deployment, and what has become of their devices."""
    stages = list(deployment.stages.all())
    gate = gate_of(deployment)
    counts = count_stages(deployment)
    progress = progress_of(stages, counts)
    return Facts(
        stages,
        plan_of(deployment, stages),
        gate,
        counts,
        progress,
        tuple(
            (stage, each)
            for stage, each in zip(stages, progress, strict=True)
            if stage.status == StageStatus.OPEN
            and stage.settled_at is None
            and has_settled(each, gate)
        ),
    )


def facts_of_gates(
    deployment: Deployment, facts: Facts, now: datetime, awake_since: datetime
) -> tuple[tuple[types.StageProgress, ...], dict[str, types.HoldFacts]]:
    """Return the progress with who is offline where a gate could open, and the holds.

    Args:
        facts: those of the moment, their settled stages noted as such.
    """
    silence = count_silence(deployment, facts.stages, now, awake_since)
    return progress_of(facts.stages, facts.counts, silence), holds_of(deployment)


def progress_of(
    stages: list[Stage],
    counts: dict[int, StageCounts],
    silence: dict[int, OfflineCounts] | None = None,
) -> tuple[types.StageProgress, ...]:
    """Put the facts into the form that `decide` reads."""
    facts = []
    for stage in stages:
        count = counts.get(stage.number, StageCounts())
        unheard = (silence or {}).get(stage.number, OfflineCounts())
        facts.append(
            types.StageProgress(
                number=stage.number,
                size=count.total - count.neutral,
                exposed=count.exposed,
                succeeded=count.succeeded,
                failed=count.evidence_against,
                settled=count.exposed_settled,
                can_grow=count.unexposed_pending > 0,
                opened_at=stage.opened_at,
                settled_at=stage.settled_at,
                passed_at=stage.passed_at,
                is_accepted=stage.is_accepted,
                is_approved=stage.approved_at is not None,
                silent=unheard.silent,
                unheard=unheard.unheard,
                unreached=sum(count.fetch_errors.values()),
                fetch_errors=tuple(
                    sorted(count.fetch_errors.items(), key=lambda each: -each[1])
                ),
                known_unreached=stage.known_unreached,
                withdrawn=count.withdrawn,
            )
        )
    return tuple(facts)


def has_settled(progress: types.StageProgress, gate: types.Gate) -> bool:
    """Tell whether the evidence of a stage is complete, before its wait."""
    needed = progress.size * gate.minimum_exposure_percent / 100
    enough = progress.exposed >= needed or (
        progress.is_accepted and not progress.can_grow
    )
    return 0 < progress.exposed == progress.settled and enough


def usual_device_time(model_id: UUID) -> tuple[timedelta, int]:
    """Return how long a device of a model takes from order to proof, and of how many.

    By what proved updates of its latest deployments took; without any, as the
    specification assumes, of 0.
    """
    recent = Deployment.objects.filter(firmware__model=model_id)
    sample = (
        Update.objects.filter(
            deployment__in=list(
                recent.order_by("-created_at").values_list("pk", flat=True)[
                    :RECENT_DEPLOYMENTS
                ]
            ),
            kind=OrderKind.INSTALL,
            status=UpdateStatus.SUCCESS,
        )
        .annotate(
            took=ExpressionWrapper(
                F("closed_at") - F("offered_at"), output_field=DurationField()
            )
        )
        .values("took")[:MEASURED_UPDATES]
    )
    measured = sample.aggregate(mean=Avg("took"), number=Count("took"))
    return measured["mean"] or settings.USUAL_UPDATE_TIME, measured["number"]
