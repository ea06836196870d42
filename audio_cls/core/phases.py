"""The phase that a worker process is in (besides training), written to a file for the process that started it.

Computing features can take minutes in which a worker finishes no epoch; without this its supervisor would show nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["PHASE_FILE", "read_phases", "write_phase"]

PHASE_FILE = "AUDIO_CLS_PHASE_FILE"  # environment variable: where a worker writes what it is doing
WRITE_SECONDS = 1.0


def write_phase() -> Callable[[str, int, int], None] | None:
    """Return a function `(phase, done, total)` for a `Watch` that writes to this worker's phase file; None if
    nobody reads it.

    The file is a display: it is not synced, and a write that fails is left out.
    """
    place = os.environ.get(PHASE_FILE)
    if not place:
        return None
    path, due = Path(place), 0.0

    def tell(phase: str, done: int, total: int) -> None:
        nonlocal due
        now = time.monotonic()
        if now < due and done < total:
            return
        due = now + WRITE_SECONDS
        try:
            path.write_text("" if done >= total else f"{phase} {done}/{total}", encoding="utf-8")
        except OSError:
            return

    return tell


def read_phases(paths: Sequence[Path]) -> str:
    """Return what the workers are doing, by their phase files: `computing features 300/2000, evaluation 64/400`."""
    found = []
    for path in paths:
        try:
            found.append(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
    return ", ".join(text for text in found if text)
