"""Make ready what the first request needs; safe to run at every start."""

import os
from typing import Any

from django.core.management.base import BaseCommand

from firmware.services.keys import ensure_firmware_keys
from hotswap.common import services


class Command(BaseCommand):
    help = "Create or check the key files, the roles, the first Admin, the signing key."

    def handle(self, *args: Any, **options: Any) -> None:
        services.ensure_keys()
        services.ensure_groups()
        ensure_firmware_keys()
        password = os.environ.get("HOTSWAP_ADMIN_PASSWORD")
        if password:
            services.ensure_first_admin(
                username=os.environ.get("HOTSWAP_ADMIN_USERNAME", "admin"),
                password=password,
            )
