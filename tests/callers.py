"""Fixtures: callers of the API in each role; a conftest takes those it needs."""

import pytest

from devices.models import Device
from hotswap.common.models import User
from hotswap.common.tokens import person_access_token
from tests.api import Caller
from tests.common.factories import PersonFactory
from tests.devices.factories import DeviceFactory, device_token


class PersonCaller(Caller):
    """A caller that remembers who it is."""

    __slots__ = ("person",)

    def __init__(self, person: User) -> None:
        super().__init__(token=person_access_token(person))
        self.person = person


@pytest.fixture
def anonymous() -> Caller:
    return Caller()


@pytest.fixture
def viewer(db: None) -> PersonCaller:
    return PersonCaller(PersonFactory.create())


@pytest.fixture
def operator(db: None) -> PersonCaller:
    return PersonCaller(PersonFactory.create(operator=True))


@pytest.fixture
def admin(db: None) -> PersonCaller:
    return PersonCaller(PersonFactory.create(admin=True))


@pytest.fixture
def device(db: None) -> Device:
    return DeviceFactory.create(device_id="table-device")


@pytest.fixture
def device_caller(device: Device) -> Caller:
    return Caller(token=device_token(device))
