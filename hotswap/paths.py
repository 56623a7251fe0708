"""Where this installation lies, and where it keeps its data unless told otherwise."""

from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parent.parent
DEFAULT_DATA_DIR = PROJECT_DIR / ".hotswap"
