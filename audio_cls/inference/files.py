"""Which files are labelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from audio_cls.core.errors import UserError
from audio_cls.data.audio import AUDIO_SUFFIXES

__all__ = ["audio_files"]


def audio_files(paths: Sequence[Path]) -> list[Path]:
    """Return files as they are, whether they are there or not; folders as the audio files below them, in order of
    their names.

    Raises:
        UserError: for a folder without audio files.
    """
    out: list[Path] = []
    for path in paths:
        if not _is_folder(path):
            out.append(path)
            continue
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and not p.is_dir())
        if not found:
            raise UserError(
                f"{path}: no audio file below it ({', '.join(sorted(AUDIO_SUFFIXES))}). TFRecord files, pictures and audio in tables are "
                "read by data prepare only"
            )
        out += found
    return out


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False
