"""A database that refuses is the server's trouble, and passes."""

import pytest
from django.db import connection

from devices.models import Device
from tests.api import problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.devices.factories import DeviceFactory


@pytest.mark.django_db(transaction=True)
def test_a_request_that_loses_a_lock_is_asked_to_try_again() -> None:
    operator = PersonCaller(PersonFactory.create(operator=True))
    device = DeviceFactory.create(device_id="locked")
    path = f"/devices/{device.device_id}"
    holder = connection.copy()
    try:
        with holder.cursor() as cursor, connection.cursor() as own:
            holder.set_autocommit(False)
            cursor.execute("SELECT 1 FROM devices_device FOR UPDATE")
            own.execute("SET lock_timeout = '100ms'")
            refused = operator.patch(path, {"region": "APAC"})
            holder.rollback()
            own.execute("SET lock_timeout = 0")
            accepted = operator.patch(path, {"region": "APAC"})
    finally:
        holder.close()

    problem_of(refused, 503, "try_again")
    assert refused["Retry-After"] == "1"
    assert accepted.status_code == 200
    assert Device.objects.get().region == "APAC"
