"""Callers for the tests of the API kit."""

from tests.callers import (  # noqa: F401
    admin,
    anonymous,
    device,
    device_caller,
    operator,
    viewer,
)
