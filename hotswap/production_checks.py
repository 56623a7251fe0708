"""What Django objects to in the settings of a real installation."""

import os
from typing import Final

from django.core import checks
from django.core.exceptions import ImproperlyConfigured

# What is meant so: the policy of content refuses frames, and whether browsers are told
# of a domain ahead of time is its owner's to decide.
MEANT: Final = frozenset({"security.W019", "security.W021"})


def is_production() -> bool:
    """Tell whether this process runs with the settings of a real installation."""
    return os.environ.get("DJANGO_SETTINGS_MODULE", "").endswith(".production")


def refuse_weak_settings() -> None:
    """End the start of a real installation whose settings are not safe.

    Raises:
        ImproperlyConfigured: says what `manage.py check --deploy` objects to.
    """
    if not is_production():
        return
    found = [
        f"{message.msg} ({message.id})"
        for message in checks.run_checks(
            tags=[checks.Tags.security], include_deployment_checks=True
        )
        if message.level >= checks.WARNING and message.id not in MEANT
    ]
    if found:
        raise ImproperlyConfigured(" ".join(found))
