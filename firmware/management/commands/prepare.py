"""Make ready what the first request needs; safe to run at every start."""

import os
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from firmware.services.keys import ensure_firmware_keys
from firmware.storage_locations import check_settings
from hotswap.common import people, services
from hotswap.common.postgresql.roles import require_separate_roles
from hotswap.common.secret_files import EnvironmentWithFiles
from hotswap.common.trail.verifier import require_triggers


class Command(BaseCommand):
    help = "Create or check the guard of the trail, keys, roles and the first Admin."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            check_settings()
            require_separate_roles()
            require_triggers()
            services.ensure_keys()
            ensure_firmware_keys()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        services.forget_former_schedules()
        people.ensure_groups()
        password = EnvironmentWithFiles().get("HOTSWAP_ADMIN_PASSWORD")
        if password:
            try:
                people.ensure_first_admin(
                    username=os.environ.get("HOTSWAP_ADMIN_USERNAME", "admin"),
                    password=password,
                )
            except people.WeakPasswordError as error:
                raise CommandError(f"HOTSWAP_ADMIN_PASSWORD: {error.detail}") from None
