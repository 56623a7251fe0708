"""Fixtures for tests of the agent as a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.devices.agent.device_process import DeviceProcess
from tests.devices.agent.protocol_server import (
    ProtocolServer,
    Signer,
    serving,
    write_keys,
)


@pytest.fixture(scope="session")
def signer() -> Signer:
    """The signing key that devices pin."""
    return Signer()


@pytest.fixture(scope="session")
def other_signer() -> Signer:
    """A signing key that nobody pins."""
    return Signer()


@pytest.fixture
def server(signer: Signer) -> Iterator[ProtocolServer]:
    """A protocol server without faults or orders."""
    with serving(signer) as server:
        yield server


@pytest.fixture
def device(server: ProtocolServer, tmp_path: Path) -> Iterator[DeviceProcess]:
    """A provisioned device, not started; killed at the end whatever happens."""
    keys = write_keys(tmp_path / "keys", server.signer)
    device = DeviceProcess(tmp_path / "device", server, keys)
    device.provision()
    yield device
    device.kill()
