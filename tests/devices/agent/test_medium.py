"""The medium of the power cut tests forgets what it should, and nothing else."""

import os
from pathlib import Path

import pytest

from tests.devices.agent.medium import Medium, always_lost, chance_of, merged


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    (folder / "file").write_text("old")
    return folder


def flush(medium: Medium, path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    medium.fsync(descriptor)
    os.close(descriptor)


def left_by(medium: Medium) -> dict[str, str]:
    target = medium.root.with_name("left")
    medium.leave(target, always_lost)
    return {path.name: path.read_text() for path in target.iterdir()}


def test_what_is_not_flushed_is_lost(root: Path) -> None:
    medium = Medium(root)
    (root / "file").write_text("new")
    (root / "other").write_text("new")

    assert left_by(medium) == {"file": "old"}


def test_bytes_without_a_name_are_lost(root: Path) -> None:
    medium = Medium(root)
    (root / "other").write_text("new")
    flush(medium, root / "other")

    assert left_by(medium) == {"file": "old"}


def test_name_without_bytes_is_an_empty_file(root: Path) -> None:
    medium = Medium(root)
    (root / "other").write_text("new")
    flush(medium, root)

    assert left_by(medium) == {"file": "old", "other": ""}


def test_replaced_file_is_new_once_its_folder_is_flushed(root: Path) -> None:
    medium = Medium(root)
    (root / "file.new").write_text("new")
    flush(medium, root / "file.new")
    (root / "file.new").replace(root / "file")
    flush(medium, root)

    assert left_by(medium) == {"file": "new"}


def test_removal_counts_once_its_folder_is_flushed(root: Path) -> None:
    medium = Medium(root)
    (root / "file").unlink()

    assert left_by(medium) == {"file": "old"}


def test_rename_is_kept_or_lost_as_a_whole() -> None:
    flushed, now = {"key": 1, "key.next": 2}, {"key": 2}

    outcomes = [merged(flushed, now, chance_of(f"torn:{seed}")) for seed in range(30)]

    assert all(outcome in (flushed, now) for outcome in outcomes)
    assert flushed in outcomes
    assert now in outcomes
