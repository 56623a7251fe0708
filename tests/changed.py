"""The test files that a change concerns, for `make check`.

`python -m tests.changed` prints them, one a line, the nearest first:

1. test files that were changed themselves;
2. test files that import a changed module, or mention a changed template, page of the
   documents or other file by name;
3. test files whose imports lead to a changed module over one module between, then over
   two.

Changed is what differs from the point where the branch left `main` (`BASE` in the
environment names another revision), and what git does not know yet.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import grimp

PROJECT_DIR = Path(__file__).resolve().parent.parent
PACKAGES = ("hotswap", "firmware", "devices", "health", "deployments", "tests")
# Over more modules between, nearly every test is a relative of every module.
MODULES_BETWEEN = 2


def changed_files(base: str) -> list[Path]:
    """Return the changed and the new files, relative to the project's folder."""
    fork = _git("merge-base", "HEAD", base).strip() or "HEAD"
    names = [
        *_git("diff", "--name-only", "--diff-filter=d", fork).splitlines(),
        *_git("ls-files", "--others", "--exclude-standard").splitlines(),
    ]
    return [Path(name) for name in dict.fromkeys(names)]


def concerned_tests(changed: Iterable[Path]) -> list[Path]:
    """Return the test files that changed files concern, the nearest first."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    found: dict[Path, None] = {}
    modules: set[str] = set()
    for path in changed:
        if path.suffix != ".py":
            found |= dict.fromkeys(_mentioning(path.name))
        elif _is_test(path):
            found[path] = None
        else:
            modules.add(_module(path))
    modules &= graph.modules
    reached = set(modules)
    for _ in range(MODULES_BETWEEN + 1):
        modules = {
            importer
            for module in modules
            for importer in graph.find_modules_that_directly_import(module)
        } - reached
        reached |= modules
        paths = sorted(_path(module) for module in modules)
        found |= dict.fromkeys(path for path in paths if _is_test(path))
    return list(found)


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=PROJECT_DIR, capture_output=True, text=True, check=False
    ).stdout


def _is_test(path: Path) -> bool:
    return path.parts[0] == "tests" and path.name.startswith("test_")


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _path(module: str) -> Path:
    return Path(*module.split(".")).with_suffix(".py")


def _mentioning(name: str) -> Iterator[Path]:
    for path in sorted((PROJECT_DIR / "tests").rglob("test_*.py")):
        if name in path.read_text():
            yield path.relative_to(PROJECT_DIR)


if __name__ == "__main__":
    for path in concerned_tests(changed_files(os.environ.get("BASE", "main"))):
        sys.stdout.write(f"{path}\n")
