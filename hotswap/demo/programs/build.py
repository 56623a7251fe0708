"""Build the demo's firmware: programs as single-file zip applications.

Rules:
- The same sources give the same bytes, on any machine and at any time: no clock, no
  compression, names in order, fixed permissions.
- A build holds the shared sources, those of its version laid over them, the
  calibration table of its model and a note of what it is.
"""

import hashlib
import json
import math
import struct
import zipfile
from pathlib import Path

SOURCES = Path(__file__).parent / "sources"
VERSIONS = ("2.4.0", "2.5.0", "2.6.0", "2.7.0")
# Nobody runs them any more; they differ from 2.4.0 in what they say of themselves.
PAST_VERSIONS = ("2.2.0", "2.3.0", "2.3.1")
INTERPRETER_LINE = b"#!/usr/bin/env python3\n"
BUILT_AT = (2025, 1, 1, 0, 0, 0)
CONVERTER_COUNTS = 4096
MAX_CURVATURE_COUNTS = 3.0


def build_program(version: str, model: str, destination: Path) -> Path:
    """Write the program of one version for one model; make the folder if needed.

    Raises:
        ValueError: there are no sources of this version.
    """
    if version not in VERSIONS + PAST_VERSIONS:
        raise ValueError(f"no sources of version {version}")
    sources = VERSIONS[0] if version in PAST_VERSIONS else version
    entries = {
        **_sources(SOURCES / "shared"),
        **_sources(SOURCES / f"v{sources.replace('.', '_')}"),
        "sensor/calibration.bin": calibration_table(model),
        "sensor/about.json": json.dumps(
            {"model": model, "version": version}, sort_keys=True
        ).encode(),
    }
    destination.parent.mkdir(parents=True, exist_ok=True)
    with destination.open("wb") as file:
        file.write(INTERPRETER_LINE)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(entries):
                entry = zipfile.ZipInfo(name, BUILT_AT)
                entry.create_system = 3
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, entries[name])
    destination.chmod(0o644)
    return destination


def calibration_table(model: str) -> bytes:
    """Give a correction for each count of the converter, 4096 little-endian doubles.

    The curvature differs from model to model and never exceeds three counts.
    """
    seed = hashlib.sha256(model.encode()).digest()
    phase = seed[0] / 255 * math.tau
    depth = (0.2 + 0.8 * seed[1] / 255) * MAX_CURVATURE_COUNTS
    corrections = (
        # Rounded, so that no machine's sine makes other bytes.
        round(depth * math.sin(phase + count / CONVERTER_COUNTS * math.tau), 6)
        for count in range(CONVERTER_COUNTS)
    )
    return struct.pack(f"<{CONVERTER_COUNTS}d", *corrections)


def _sources(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.py")
    }
