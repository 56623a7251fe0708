"""Who is let in, asked of SQL, of a queryset and of an instance alike."""

from itertools import product
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from devices.admission import IS_ADMITTED, IS_CALLER, admitted, is_admitted
from devices.models import Device
from devices.selectors import admitted_device
from tests.devices.factories import DeviceFactory


@pytest.mark.django_db
def test_all_ways_to_ask_agree() -> None:
    device, now = DeviceFactory.create(), timezone.now()
    for revoked_at, erased_at in product([None, now], [None, now]):
        Device._base_manager.update(revoked_at=revoked_at, erased_at=erased_at)
        found = Device._base_manager.get(pk=device.pk)

        expected = revoked_at is None and erased_at is None
        assert is_admitted(found) is expected
        assert Device._base_manager.filter(admitted()).exists() is expected
        assert (admitted_device(device.pk) is not None) is expected
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {IS_ADMITTED}, {IS_CALLER} FROM devices_device d",
                {"device": device.pk, "name": device.device_id},
            )
            assert cursor.fetchone() == (expected, expected)


@pytest.mark.django_db
def test_a_caller_under_another_name_is_not_let_in() -> None:
    device = DeviceFactory.create()
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {IS_CALLER} FROM devices_device d",
            {"device": device.pk, "name": "another"},
        )

        assert cursor.fetchone() == (False,)


def test_no_other_statement_spells_it_out() -> None:
    root = Path(settings.BASE_DIR)
    found = {
        str(file.relative_to(root))
        for app in ("hotswap", "firmware", "devices", "health", "deployments")
        for file in (root / app).rglob("*.py")
        if "migrations" not in file.parts and "d.revoked_at IS NULL" in file.read_text()
    }

    assert found == {"devices/admission.py"}
