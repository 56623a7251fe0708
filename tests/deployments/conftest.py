"""Fixtures for tests of deployments."""

import pytest

from tests.callers import admin, operator, viewer  # noqa: F401
from tests.deployments.world import World


@pytest.fixture
def world(db: None) -> World:
    """A small world whose clock stands at its start."""
    return World()
