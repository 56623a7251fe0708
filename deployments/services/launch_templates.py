"""Launch templates: settings of a launch that operators keep under a name.

What belongs to one launch alone is not kept: its firmware, its name, its start, and
what was acknowledged.
"""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from deployments.exceptions import TooManyTemplatesError
from deployments.models import LaunchTemplate
from hotswap.common import audit
from hotswap.common.models import User

KEPT_AT_MOST = 100
OF_ONE_LAUNCH = frozenset({"firmwareId", "name", "scheduledAt", "acknowledge"})


@transaction.atomic
def save_template(*, actor: User, name: str, body: Mapping[str, Any]) -> LaunchTemplate:
    """Keep the settings of a launch; a template of the same name is replaced.

    Args:
        body: of `POST /deployments`, as it was found valid.

    Raises:
        TooManyTemplatesError: there are 100 others (409).
    """
    kept = {key: value for key, value in body.items() if key not in OF_ONE_LAUNCH}
    others = LaunchTemplate.objects.exclude(name=name)
    if others.count() >= KEPT_AT_MOST:
        raise TooManyTemplatesError(
            f"{KEPT_AT_MOST} templates are kept, which is as many as there may be"
        )
    template, is_new = LaunchTemplate.objects.update_or_create(
        name=name, defaults={"body": kept}
    )
    _record(template, "created" if is_new else "changed", actor)
    return template


@transaction.atomic
def remove_template(*, actor: User, name: str) -> None:
    """Forget a template, if there is one of this name."""
    template = (
        LaunchTemplate.objects.select_for_update(no_key=True).filter(name=name).first()
    )
    if template is not None:
        _record(template, "deleted", actor)
        template.delete()


def _record(template: LaunchTemplate, verb: str, actor: User) -> None:
    audit.record(
        actor=actor,
        verb=f"launch-template.{verb}",
        object_kind="launch-template",
        object_id=template.pk,
        details={"name": template.name},
        changed=template,
    )
