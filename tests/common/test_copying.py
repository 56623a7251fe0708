"""Writing many rows by COPY."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from hotswap.common.copying import copy_rows
from hotswap.common.models import AuditEvent, KeyFingerprint

pytestmark = pytest.mark.django_db


def test_rows_get_what_is_given_and_defaults_for_the_rest() -> None:
    before = timezone.now()

    copy_rows(
        AuditEvent,
        ("verb", "object_id", "details"),
        [
            ("test.done", str(n), {"text": 'tab\t, line\n, "quote" \\', "n": n})
            for n in (1, 2)
        ],
    )

    rows = AuditEvent.objects.filter(verb="test.done").order_by("id")
    assert [row.details["n"] for row in rows] == [1, 2]
    assert rows[0].details["text"] == 'tab\t, line\n, "quote" \\'
    assert rows[0].actor is None
    assert before <= rows[0].at < before + timedelta(minutes=5)


def test_no_rows_are_no_error() -> None:
    copy_rows(AuditEvent, ("verb",), [])


def test_a_violated_constraint_is_an_error_of_django_and_writes_nothing() -> None:
    count = KeyFingerprint.objects.count()

    with pytest.raises(IntegrityError), transaction.atomic():
        copy_rows(KeyFingerprint, ("name", "fingerprint"), [("a", "1"), ("a", "2")])

    assert KeyFingerprint.objects.count() == count
