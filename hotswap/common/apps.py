"""What every app stands on: accounts, roles, audit trail, API kit. No domain words."""

from django.apps import AppConfig


class CommonConfig(AppConfig):
    name = "hotswap.common"
    label = "common"
    verbose_name = "Users and audit"

    def ready(self) -> None:
        from hotswap.common import login_audit

        login_audit.connect()
