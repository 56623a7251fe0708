"""What devices may say is in the page about the agent's protocol, and is asked here."""

import re

import pytest

from deployments.protocols.native.messages import ReportInput
from health.api.serializers import HeartbeatInput
from hotswap.common.wire import camelize
from tests.live import PROJECT_DIR

PAGE = (PROJECT_DIR / "docs" / "agent.md").read_text()
FIELDS = {*ReportInput().fields.keys(), *HeartbeatInput().fields.keys()}


@pytest.mark.parametrize("name", sorted(camelize(str(each)) for each in FIELDS))
def test_a_field_of_a_message_is_in_the_documents(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE)
