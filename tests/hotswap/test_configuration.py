"""Every variable that the server reads is documented and can be given to it."""

import re
from pathlib import Path

from tests.live import PROJECT_DIR

SOURCES = ("hotswap", "firmware", "devices", "deployments", "health")
VARIABLE = r"(?:HOTSWAP|OTEL)_[A-Z0-9_]+"
# Between processes of HotSwap itself, or of its demo and tests; nobody sets them.
INTERNAL = {"HOTSWAP_SUPERVISED", "HOTSWAP_DEMO_CLOCK", "HOTSWAP_AGENT_CRASH_AT"}
# The image of the container has its folder, production its four eyes, and the command
# of `web` its threads.
FIXED_IN_CONTAINERS = {
    "HOTSWAP_DATA_DIR",
    "HOTSWAP_KEYS_DIR",
    "HOTSWAP_FOUR_EYES",
    "HOTSWAP_WEB_THREADS",
    "HOTSWAP_DEMO_CLOCK",
}
COMPOSE = PROJECT_DIR / "docker-compose.yml"


def read_in(*folders: Path) -> set[str]:
    """Return the variables that the sources in some folders name."""
    found: set[str] = set()
    for folder in folders:
        for path in folder.rglob("*.py"):
            found.update(re.findall(rf"[\"']({VARIABLE})[\"']", path.read_text()))
    return found


def documented() -> set[str]:
    """Return the variables that have a row in a table of the documents."""
    found: set[str] = set()
    for path in (PROJECT_DIR / "docs").glob("*.md"):
        for line in path.read_text().splitlines():
            if line.startswith("|"):
                # What comes first says what the row is about.
                found.update(re.findall(rf"`({VARIABLE})`", line.split(" | ")[0]))
    return found


def in_example() -> list[str]:
    text = (PROJECT_DIR / ".env.example").read_text()
    return re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE)


def test_every_variable_has_a_row_in_the_documents() -> None:
    read = read_in(*(PROJECT_DIR / each for each in SOURCES))

    assert read - INTERNAL - documented() == set()


def test_compose_passes_every_setting_on() -> None:
    settings = read_in(PROJECT_DIR / "hotswap" / "settings")
    passed = set(re.findall(rf"^    ({VARIABLE}):", COMPOSE.read_text(), re.MULTILINE))

    assert settings - FIXED_IN_CONTAINERS - passed == set()


def test_example_names_what_compose_takes_and_nothing_else() -> None:
    text = COMPOSE.read_text()
    filled_in = set(re.findall(r"\$\{([A-Z0-9_]+)", text))
    passed_on = set(re.findall(rf"^    ({VARIABLE}):$", text, re.MULTILINE))

    names = in_example()

    assert sorted(names) == sorted(filled_in | passed_on)
