"""Pretrained weights in a study's archive: the workspace's copies of the files that its experiments begin from."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.queue.storage import IDENTITY
from audio_cls.runs.pretrained import file_hash
from audio_cls.study.transfer.archive import ArchiveWriter

__all__ = ["check_weights", "export_weights", "place_weights"]

SHA256 = "[0-9a-f]{64}"


def export_weights(archive: ArchiveWriter, workspace: Workspace, study: Mapping[str, Any]) -> list[str]:
    """Put the files of weights that a study begins from into its archive. Returns what to say of those that are not there."""
    said = []
    for sha256, file in _named(study).items():
        kept = workspace.weights / sha256
        if kept.is_file() and file_hash(kept) == sha256:
            with open(kept, "rb") as source:
                archive.file(f"weights/{sha256}", source)
        else:
            said.append(f"its pretrained weights {_shown(sha256, file)} are not in the workspace: they are left out")
    return said


def check_weights(file: Path, folder: Path, study: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files of weights of an unpacked archive, by their SHA-256.

    Raises:
        UserError: for a file that no experiment of the study begins from, or whose content is another.
    """
    named, out = _named(study), {}
    for found in sorted(folder.glob("*")):
        if found.name not in named or not found.is_file():
            raise UserError(f"{file}: weights/{found.name} belongs to no trial of the study; nothing was imported")
        if file_hash(found) != found.name:
            raise UserError(f"{file}: weights/{found.name} has another SHA-256 than its name; nothing was imported")
        out[found.name] = found
    return out


def place_weights(workspace: Workspace, carried: Mapping[str, Path], study: Mapping[str, Any]) -> list[str]:
    """Put the files of weights into the workspace. Returns what to say of those that the study needs and that are not here."""
    said = []
    for sha256, file in _named(study).items():
        kept = workspace.weights / sha256
        if kept.is_file():
            continue
        if sha256 in carried:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(
                carried[sha256], kept
            )  # named by its content: what an import leaves behind after a fault is no harm
        else:
            said.append(
                f"its pretrained weights {_shown(sha256, file)} are not here: trials that begin from them fail until the file is "
                f"where its experiments name it, or at {kept}"
            )
    return said


def _named(study: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each file of weights that the base or a trial of a study begins from -> the path or address given."""
    out: dict[str, str] = {}
    identity = study["attrs"].get(IDENTITY)
    stored = [
        identity.get("base") if isinstance(identity, Mapping) else None,
        *(t["user_attrs"].get("experiment") for t in study["trials"]),
    ]
    for experiment in stored:
        try:
            model = (json.loads(experiment) if isinstance(experiment, str) else experiment)["model"]
            sha256, file = model["weights"]["sha256"], model["weights"].get("file")
        except (ValueError, TypeError, KeyError, AttributeError):  # no weights, or not an experiment of ours
            continue
        if isinstance(sha256, str) and re.fullmatch(SHA256, sha256):
            out.setdefault(sha256, str(file or ""))
    return out


def _shown(sha256: str, file: str) -> str:
    return f"{file} (SHA-256 {sha256[:12]})" if file else f"with the SHA-256 {sha256}"
