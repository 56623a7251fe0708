"""The prepared database is one of the migrations that are there."""

from pathlib import Path

import pytest
from django.db import connection

from tests.prepared import digest_of, prepared_folder
from tests.services import has_embedded_database


def test_another_database_is_prepared_when_a_file_is_changed_added_or_renamed(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "0001.py", tmp_path / "0002.sql"
    first.write_text("operations = []")
    digests = {digest_of([first])}

    first.write_text("operations = [...]")
    digests.add(digest_of([first]))
    second.write_text("")
    digests.add(digest_of([first, second]))
    digests.add(digest_of([first.rename(tmp_path / "0003.py"), second]))

    assert len(digests) == 4
    assert digest_of([second, first.with_name("0003.py")]) in digests


@pytest.mark.skipif(
    not has_embedded_database(), reason="the environment names a database"
)
def test_tests_begin_with_a_copy_of_the_prepared_database(db: None) -> None:
    assert connection.settings_dict["TEST"]["TEMPLATE"] == "hotswap"
    assert (prepared_folder() / "postgres" / "data" / "PG_VERSION").exists()
