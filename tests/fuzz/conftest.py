"""What the requests are sent to."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest

from hotswap.common.tokens import DeviceToken, PersonToken
from tests.fuzz.ground import Ground, lay_ground
from tests.fuzz.judge import Judge

LIMITS = (
    *("DEVICE_REQUESTS_PER_SECOND", "LOGIN_FAILURES_PER_MINUTE"),
    *("LOGIN_FAILURES_PER_ADDRESS", "LOGIN_FAILURES_PER_ACCOUNT"),
    *("PERSON_REQUESTS_PER_MINUTE", "UPLOADS_PER_MINUTE", "IMPORTS_PER_MINUTE"),
    *("EXPORTS_PER_MINUTE", "PREVIEWS_PER_MINUTE"),
)


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def ground(
    db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ground]:
    """Everything that requests may name, and limits that none of them reaches."""
    for limit in LIMITS:
        setattr(settings, limit, 10_000_000)
    # A round on a busy machine lasts longer than a token does otherwise.
    for token in (PersonToken, DeviceToken):
        monkeypatch.setattr(token, "lifetime", timedelta(days=1))
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]
    found = lay_ground()
    logging.disable(logging.CRITICAL)
    yield found
    logging.disable(logging.NOTSET)
