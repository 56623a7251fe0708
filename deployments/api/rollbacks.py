"""The rollbacks of all deployments, and of parts of them."""

from typing import Any

import django_filters
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from deployments.choices import RollbackTrigger
from deployments.models import Rollback
from deployments.scopes import DescribedScope, Scope
from hotswap.common.api.base import ListView
from hotswap.common.api.filters import ChoiceFilter, ZonedTimeFilter
from hotswap.common.api.outputs import output_of
from hotswap.common.api.serializers import CamelSerializer, StrictChoiceField
from hotswap.common.roles import Role
from hotswap.common.wire import to_wire


class RollbackFilter(django_filters.FilterSet):
    deployment = django_filters.UUIDFilter("deployment_id")
    firmware = django_filters.UUIDFilter("deployment__firmware_id")
    trigger = ChoiceFilter("facts__trigger", choices=RollbackTrigger.choices)
    to = ZonedTimeFilter("started_at", "lt")


# `from` is a word of the language, so it cannot be declared as an attribute.
RollbackFilter.base_filters["from"] = ZonedTimeFilter("started_at", "gte")


class RolledBackDeploymentOutput(CamelSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    status = serializers.CharField(help_text="as it stands now")
    strategy = serializers.CharField()


class RolledBackFirmwareOutput(CamelSerializer):
    id = serializers.UUIDField()
    model = serializers.CharField(source="model.name")
    version = serializers.CharField()


class RollbackCountsOutput(CamelSerializer):
    """Devices of the deployment when its rollback began."""

    total = serializers.IntegerField()
    exposed = serializers.IntegerField()
    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()


class RollbackReasonOutput(CamelSerializer):
    error_code = serializers.CharField()
    devices = serializers.IntegerField()


class RollbackOutput(CamelSerializer):
    """A rollback, with the numbers of its deployment at the moment it began."""

    id = serializers.IntegerField()
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(
        allow_null=True, help_text="null while devices are on their way"
    )
    scope = serializers.SerializerMethodField(method_name="get_scope")
    deployment = RolledBackDeploymentOutput()
    firmware = RolledBackFirmwareOutput(source="deployment.firmware")
    trigger = StrictChoiceField(choices=RollbackTrigger.choices, source="facts.trigger")
    stage = serializers.IntegerField(
        source="stage_number", allow_null=True, help_text="whose gate decided"
    )
    reason = serializers.CharField()
    devices = RollbackCountsOutput(source="facts.deployment")
    reasons = serializers.SerializerMethodField(method_name="get_reasons")

    @extend_schema_field(output_of(DescribedScope))
    def get_scope(self, rollback: Rollback) -> Any:
        return to_wire(Scope.from_json(rollback.scope).described())

    @extend_schema_field(RollbackReasonOutput(many=True))
    def get_reasons(self, rollback: Rollback) -> Any:
        return rollback.facts["reasons"]


class RollbacksView(ListView):
    """The rollbacks of all deployments and of parts of them, newest first.

    What became of each device is told by `GET /deployments/{id}/rollbacks`, devices
    that went back alone included.
    """

    roles = {"GET": Role.VIEWER}
    queryset = Rollback.objects.select_related("deployment__firmware__model")
    filterset_class = RollbackFilter
    output_class = RollbackOutput
    ordering = "-started_at"
