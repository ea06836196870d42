"""Python processes that import nothing from the current folder.

`python -m` and `python -c` search the current folder first, so that a `numpy.py` that is there (in a download, in somebody's
share) would be executed. Processes are started with `-P`, which leaves the folder out; the command itself drops it at its start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["drop_current_folder", "python_command", "safe_environment"]

_HOME = str(Path(__file__).resolve().parents[2])  # the folder that holds this package


def python_command(module: str, *words: str) -> list[str]:
    """Return the command line that runs a module in a Python process of its own. Start it with `safe_environment`."""
    return [sys.executable, "-P", "-m", module, *words]


def safe_environment() -> dict[str, str]:
    """Return this process's environment, for a Python process that (with its own children) ignores the current folder.

    A checkout that is used without being installed stays importable through PYTHONPATH.
    """
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    if _only_in_current_folder():
        paths = [p for p in (environment.get("PYTHONPATH"), _HOME) if p]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def drop_current_folder() -> None:
    """Take the current folder off the front of the search path, where Python put it, unless this package is found there alone.

    What PYTHONPATH names stays.
    """
    if not sys.flags.safe_path and sys.path and _is_current(sys.path[0]) and not _only_in_current_folder():
        del sys.path[0]


def _only_in_current_folder() -> bool:
    """Whether this package is found in the current folder and nowhere else."""
    if sys.flags.safe_path or not sys.path or not _is_current(sys.path[0]) or _current() != _HOME:
        return False
    return _HOME not in (os.path.realpath(p) for p in sys.path[1:] if p)


def _is_current(entry: str) -> bool:
    return entry == "" or os.path.realpath(entry) == _current()


def _current() -> str:
    try:
        return os.path.realpath(os.getcwd())
    except OSError:  # it was removed
        return ""
