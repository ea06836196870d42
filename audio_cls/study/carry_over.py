"""The checkpoints of trials that a new version of a study carries over."""

from __future__ import annotations

import os
import shutil

from audio_cls.core.workspace import Workspace
from audio_cls.queue.places import trial_folder
from audio_cls.study.versions import NewVersion

__all__ = ["bring_checkpoints"]


def bring_checkpoints(workspace: Workspace, made: NewVersion) -> int:
    """Give carried trials their checkpoints under their new numbers, so that pruned ones can be revived; how many.

    Files are linked, which costs no room, where the file system can: a checkpoint is only ever replaced as a whole.
    """
    brought = 0
    for number, (root, old) in made.carried.items():
        attempts = trial_folder(workspace, made.before, root, old).parent
        found = sorted((f for f in attempts.glob("*/last.safetensors") if int(f.parent.name) <= old), reverse=True)
        if not found:
            continue
        target = trial_folder(workspace, made.study.name, number, number)
        target.mkdir(parents=True, exist_ok=True)
        for file in found[0].parent.glob("*.safetensors"):
            try:
                os.link(file, target / file.name)
            except OSError:
                shutil.copyfile(file, target / file.name)
        brought += 1
    return brought
