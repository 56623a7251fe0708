"""The token of whoever scrapes: one fixed text for all, or one that a person has."""

from dataclasses import dataclass
from typing import Any

from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.request import Request

from hotswap.common.api.authentication import REALM
from hotswap.common.roles import Role
from hotswap.monitoring.tokens import is_metrics_token


@dataclass(frozen=True, slots=True)
class Scraper:
    """Who shows the metrics token: reads what Viewers read here, and nothing else."""

    role: Role = Role.VIEWER
    is_active: bool = True
    is_authenticated: bool = True


class MetricsTokenAuthentication(BaseAuthentication):
    """Let in who shows the metrics token; leave all others to the next."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        if is_metrics_token(get_authorization_header(request)):
            return Scraper(), None
        return None

    def authenticate_header(self, request: Request) -> str:
        return REALM
