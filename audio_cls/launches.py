"""How a study was started: its file, the keys set on the command line, the sources. Kept with the study, so that it can be
named instead of its file, and carried to another machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from audio_cls.errors import UserError
from audio_cls.workspace import Workspace

__all__ = ["LAUNCH", "Launch", "find_launch", "record_launch"]

LAUNCH = "launch"  # user attribute of a study
LARGEST_SOURCE = 200_000  # characters


@dataclass(frozen=True)
class Launch:
    """A study's file, the changes to its base, and the name it goes by where that is not the declared one."""

    file: Path
    assignments: tuple[str, ...] = ()
    name: str | None = None


def record_launch(workspace: Workspace, opened: Any, file: Path, assignments: Sequence[str]) -> None:
    """Keep with the Optuna study how it is started: the file's place (relative to the workspace where it lies in it), and the
    text of the file and of the modules beside it that it imported."""
    path = file.resolve()
    inside = path.is_relative_to(workspace.root)
    launch = {
        "file": path.relative_to(workspace.root).as_posix() if inside else str(path),
        "set": list(assignments),
        "sources": _sources(path),
    }
    if opened.user_attrs.get(LAUNCH) != launch:
        opened.set_user_attr(LAUNCH, launch)


def find_launch(workspace: Workspace, reference: str, storage: str | None, assignments: Sequence[str] = ()) -> Launch:
    """The file of a study that is given by its file (`.py`) or by its name.

    Raises:
        UserError: for a name that is unknown, or whose file is not where it was.
    """
    if reference.endswith(".py") or Path(reference).is_file():
        return Launch(Path(reference), tuple(assignments))
    from audio_cls.study.storage import load_study, open_storage

    where = open_storage(storage or workspace.optuna_db, must_exist=True)
    launch = load_study(reference, where).user_attrs.get(LAUNCH)
    if launch is None:
        raise UserError(f"study {reference!r}: its file is not known; give the file instead of the name")
    file = workspace.root / launch["file"]
    if not file.is_file():
        raise UserError(
            f"study {reference!r} was begun from {file}, and there is no such file. Give the file instead of the name."
        )
    return Launch(file, tuple(assignments) or tuple(launch["set"]), reference)


def _sources(file: Path) -> dict[str, str]:
    """The file and the Python files in its folder that are loaded, by path relative to that folder."""
    found = {file}
    for module in list(sys.modules.values()):
        place = getattr(module, "__file__", None)
        if place and place.endswith(".py") and Path(place).resolve().is_relative_to(file.parent):
            found.add(Path(place).resolve())
    out = {}
    for path in sorted(found):
        relative = PurePosixPath(path.relative_to(file.parent).as_posix())
        if any(part.startswith(".") or part == "site-packages" for part in relative.parts):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if len(text) <= LARGEST_SOURCE:
            out[str(relative)] = text
    return out
