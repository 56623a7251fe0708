"""Fixtures for tests of deployments."""

from collections.abc import Iterator

import pytest

from tests.callers import admin, operator, viewer  # noqa: F401
from tests.deployments.receivers import Receiver, serving
from tests.deployments.world import World


@pytest.fixture
def world(db: None) -> World:
    """A small world whose clock stands at its start."""
    return World()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    server = serving(found)
    yield found
    server.shutdown()
    server.server_close()
