"""Health: heartbeats, limits, verdicts. It has never heard of a rollback."""

from django.apps import AppConfig


class HealthConfig(AppConfig):
    name = "health"
    verbose_name = "Health"
