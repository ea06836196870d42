"""Folders of files that audio_cls makes: begun once for certain settings, continued by the same call."""

from __future__ import annotations

from pathlib import Path

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import atomic_write

__all__ = ["begin_folder"]


def begin_folder(folder: Path, name: str, settings: str, what: str) -> None:
    """Write the settings of what is made in a folder to `folder/name`; a folder that has them already is continued.

    Args:
        settings: equal settings must give equal files.
        what: is made, in words, for the message: `"mixtures"`.

    Raises:
        UserError: for a folder that holds something else, or the same with other settings.
    """
    known = folder / name
    if known.exists():
        if known.read_text(encoding="utf-8") != settings:
            raise UserError(f"{folder} holds {what} of another corpus or of other settings; choose another folder")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty and holds no {name}; choose another folder")
    atomic_write(known, settings)
