"""What is reported of a failure: the line of the user's own code that it comes from, and where the whole traceback is kept."""

from __future__ import annotations

import linecache
import sys
import sysconfig
import traceback
from pathlib import Path

from audio_cls.core.workspace import atomic_write

__all__ = ["FAILURE", "describe", "own_line", "write_traceback"]

FAILURE = "failure.txt"  # artifact of a failed run, and a file in the folder of its checkpoints
PACKAGE = Path(__file__).resolve().parents[1]
LONGEST_LINE = 120  # characters


def describe(error: BaseException) -> str:
    """`TYPE: message`, and the last line of the user's own code that the error passed through, if any."""
    text = f"{type(error).__name__}: {error}"
    place = own_line(error)
    return f"{text} ({place})" if place else text


def own_line(error: BaseException) -> str:
    """Return the last line of the user's own code in a traceback, `FILE, line N: TEXT`; empty if the error met none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_own(frame.filename):
            line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
            text = line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 3]}..."
            return f"{frame.filename}, line {frame.lineno}" + (f": {text}" if text else "")
    return ""


def write_traceback(folder: Path, text: str) -> Path | None:
    """Keep a traceback in a run's folder; None if it cannot be written."""
    path = folder / FAILURE
    try:
        atomic_write(path, text)
    except OSError:
        return None
    return path


def _is_own(filename: str) -> bool:
    """Whether a file is neither audio_cls nor the standard library nor an installed package."""
    if filename.startswith(("<frozen", "<string")):
        return False
    if filename.startswith("<"):
        return True  # a notebook's cell
    path = Path(filename)
    if "site-packages" in path.parts or "dist-packages" in path.parts or path.is_relative_to(PACKAGE):
        return False
    return not any(path.is_relative_to(folder) for folder in _INSTALLED)


_INSTALLED = tuple(
    {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {Path(sys.base_prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"}
)
