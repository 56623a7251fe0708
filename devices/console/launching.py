"""The way from a device or a group to its launch."""

from urllib.parse import urlencode

from django.urls import reverse

from hotswap.common.console.actions.base import Button, link_button
from hotswap.common.models import User
from hotswap.common.roles import Role


def launch_button(user: User, **chosen: str) -> Button:
    """Lead to a launch whose devices are chosen already."""
    launch = reverse("admin:deployments_deployment_launch")
    url = f"{launch}?{urlencode(chosen)}"
    return link_button(user, "Launch", "rocket_launch", url, Role.OPERATOR)
