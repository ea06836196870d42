"""Python files that came with an imported study: they run only after the user has agreed.

`study import` writes the files below `imported/NAME/` of the workspace and nowhere else. `imported/.trusted.json` says, for each
of these folders, which files (by SHA-256) the user has agreed to run; a file that changes or is imported again is asked about
again. A folder named `imported` that holds no such record was made by the user and is loaded like any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from audio_cls.core.errors import UserError
from audio_cls.core.notices import confirm
from audio_cls.core.workspace import Workspace, atomic_write

__all__ = ["ensure_trusted", "imported_folder", "remove_imported", "write_imported"]

RECORD = ".trusted.json"  # in the workspace's imported/: {folder: {file: SHA-256}}


def imported_folder(workspace: Workspace, study: str) -> Path:
    """Return where the Python files of an imported study lie."""
    return workspace.root / "imported" / study


def write_imported(workspace: Workspace, study: str, sources: Mapping[str, str]) -> list[Path]:
    """Write the files of an imported study (relative path: text) instead of any that were there. They are not trusted.

    Returns:
        The files, as they are in the workspace.
    """
    remove_imported(workspace, study)
    folder = imported_folder(workspace, study)
    record = folder.parent / RECORD
    if not record.exists():
        atomic_write(record, "{}")
    for relative, text in sources.items():
        atomic_write(folder / relative, text)
    return [folder / relative for relative in sorted(sources)]


def remove_imported(workspace: Workspace, study: str) -> None:
    """Remove the files of an imported study and the memory of having trusted them."""
    folder = imported_folder(workspace, study)
    shutil.rmtree(folder, ignore_errors=True)
    trusted = _read(folder.parent)
    if trusted.pop(study, None) is not None:
        atomic_write(folder.parent / RECORD, json.dumps(trusted, indent=1))


def ensure_trusted(file: Path, *, trust: bool = False) -> None:
    """Refuse to run a Python file that came with an imported study, until the user has agreed to its folder.

    Every file that is loaded goes through here (`loading.load_file`). Files that were not imported pass. `trust` agrees and
    remembers it; without it, a terminal is asked.

    Raises:
        UserError: for a file that is not trusted; names the files to read.
    """
    folder = _imported_folder_of(file)
    if folder is None:
        return
    found = _digests(folder)
    trusted = _read(folder.parent)
    if trusted.get(folder.name) == found:
        return
    listed = "\n".join(f"  {folder / name}" for name in found)
    changed = " and have changed since you last agreed to run them" if folder.name in trusted else ""
    what = f"these Python files came with the archive of the study {folder.name!r}{changed}:\n{listed}\n"
    if not trust:
        trust = confirm(f"{what}Run them?")
    if not trust:
        raise UserError(
            f"{what}They are not run before you agree. Read them, then add --trust to `audio-cls study run {folder.name}`: it "
            "runs them, and remembers it until one of them changes"
        )
    trusted[folder.name] = found
    atomic_write(folder.parent / RECORD, json.dumps(trusted, indent=1))


def _imported_folder_of(file: Path) -> Path | None:
    for folder in Path(file).resolve().parents:
        if folder.parent != folder and (folder.parent / RECORD).is_file():
            return folder
    return None


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder, by relative path; without Python's caches of them."""
    files = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


def _read(imported: Path) -> dict[str, dict[str, str]]:
    """Return the record of what is trusted; a damaged one trusts nothing."""
    with contextlib.suppress(OSError, ValueError):
        stored = json.loads((imported / RECORD).read_text(encoding="utf-8"))
        if isinstance(stored, dict):
            return {k: v for k, v in stored.items() if isinstance(v, dict)}
    return {}
