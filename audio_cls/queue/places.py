"""The folders of a queue's trials and workers in a workspace."""

from __future__ import annotations

from pathlib import Path

from audio_cls.core.workspace import Workspace

__all__ = ["log_folder", "trial_folder"]


def trial_folder(workspace: Workspace, study: str, root: int, number: int) -> Path:
    """Return where one attempt at a configuration keeps its checkpoints; `root` is the number of the first attempt."""
    place = "/".join(study.split(":", 1)) if ":" in study else f"studies/{study}"
    return workspace.checkpoints / place / f"{root:05d}" / f"{number:05d}"


def log_folder(workspace: Path, study: str) -> Path:
    """Return where the workers of a study write their logs."""
    return workspace / "logs" / "/".join(study.split(":", 1))
