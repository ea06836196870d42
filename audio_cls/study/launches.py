"""How a study was started: its file, the keys set on the command line, the sources. Stored with the study, so that the study can
be named instead of its file, and moved to another machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.core.errors import UserError
from audio_cls.core.loading import imported_sources
from audio_cls.core.trust import ensure_trusted
from audio_cls.core.workspace import Workspace

if TYPE_CHECKING:
    from audio_cls.study.declaration import Study

__all__ = ["LAUNCH", "Launch", "find_launch", "record_launch"]

LAUNCH = "launch"  # user attribute of a study


@dataclass(frozen=True)
class Launch:
    """A study's file, the changes to its base, and the name it goes by where that is not the declared one.

    A study that a program declares has its `declaration` as JSON (`scripts.describe`), of which the file has the space alone; in
    the program itself it is there as an object, `study`. `suffix` joins the declared name.
    """

    file: Path
    assignments: tuple[str, ...] = ()
    name: str | None = None
    declaration: Mapping[str, Any] = field(default_factory=dict)
    study: Study | None = None
    suffix: str = ""


def record_launch(workspace: Workspace, opened: Any, launch: Launch) -> None:
    """Keep with the Optuna study how it is started: the file's place (relative to the workspace where it is in it), and the
    text of the file and of the modules beside it that it imported."""
    path = launch.file.resolve()
    inside = path.is_relative_to(workspace.root)
    kept = {
        "file": path.relative_to(workspace.root).as_posix() if inside else str(path),
        "set": list(launch.assignments),
        "sources": imported_sources(path) if path.suffix == ".py" else {},
        **({"declaration": dict(launch.declaration)} if launch.declaration else {}),
    }
    if opened.user_attrs.get(LAUNCH) != kept:
        opened.set_user_attr(LAUNCH, kept)


def find_launch(
    workspace: Workspace,
    reference: str,
    storage: str | Path | None,
    assignments: Sequence[str] = (),
    *,
    trust: bool = False,
) -> Launch:
    """Find the file of a study that is given by its file (`.py`) or by its name.

    Args:
        trust: run the files of an imported study from now on (`trust.ensure_trusted`).

    Raises:
        UserError: for a name that is unknown, whose file is not where it was, or whose file was imported and is not trusted.
    """
    if reference.endswith(".py") or Path(reference).is_file():
        ensure_trusted(Path(reference), trust=trust)
        return Launch(Path(reference), tuple(assignments))
    from audio_cls.queue.storage import load_study, open_storage

    where = open_storage(storage or workspace.optuna_db, must_exist=True)
    launch = load_study(reference, where).user_attrs.get(LAUNCH)
    if launch is None:
        raise UserError(f"study {reference!r}: its file is not known; give the file instead of the name")
    file = workspace.root / launch["file"]
    if not file.is_file():
        raise UserError(
            f"study {reference!r} was begun from {file}, and there is no such file. Give the file instead of the name."
        )
    ensure_trusted(file, trust=trust)
    return Launch(file, tuple(assignments) or tuple(launch["set"]), reference, launch.get("declaration", {}))
