"""Callers for the tests of this app."""

from tests.callers import (  # noqa: F401
    admin,
    anonymous,
    device,
    device_caller,
    operator,
    viewer,
)
