"""What is wrong with clips before any is decoded: ids, labels, files."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from audio_cls.core.errors import did_you_mean
from audio_cls.data.audio import BadAudio, file_size
from audio_cls.data.manifest import Clip, Manifest

__all__ = ["clip_faults"]


def clip_faults(manifest: Manifest) -> dict[int, str]:
    """Return the clips of a manifest that cannot be used whatever their audio is: place in the manifest -> reason."""
    faults: dict[int, str] = {}
    seen: dict[str, Clip] = {}
    classes = set(manifest.classes)
    files: dict[Path, str | None] = {}
    for i, clip in enumerate(manifest.clips):
        unknown = [label for label in clip.labels if label not in classes]
        if clip.id in seen:
            faults[i] = f"its id {clip.id!r} is taken{_by_row(seen[clip.id])}"
        elif unknown:
            listed = ", ".join(manifest.classes[:12]) + (", ..." if len(manifest.classes) > 12 else "")
            faults[i] = f"label {unknown[0]!r} is not among the classes: {listed}.{did_you_mean(unknown[0], classes)}"
        elif manifest.task == "multiclass" and len(clip.labels) != 1:
            faults[i] = f"{len(clip.labels)} labels, a multiclass set needs exactly one"
        else:
            if clip.path not in files:
                files[clip.path] = _file_fault(clip.path)
            reason = files[clip.path]
            if reason is not None:
                faults[i] = reason
        seen.setdefault(clip.id, clip)
    return {**faults, **_contradictions(manifest, faults)}


def _file_fault(path: Path) -> str | None:
    try:
        file_size(path)
    except BadAudio as error:
        return str(error)
    return None


def _contradictions(manifest: Manifest, faults: dict[int, str]) -> dict[int, str]:
    """Return clips that are the same part of the same file, by whatever spelling or link, with other labels. None of
    them is right for sure, so all of them are bad.
    """
    same: dict[tuple[object, ...], list[int]] = defaultdict(list)
    files: dict[Path, object] = {}
    for i, clip in enumerate(manifest.clips):
        if i not in faults:
            if clip.path not in files:
                files[clip.path] = _identity(clip.path)
            same[files[clip.path], clip.start, clip.end, clip.position].append(i)
    found = {}
    for places in same.values():
        for i in places:
            clip = manifest.clips[i]
            others = [manifest.clips[j] for j in places if set(manifest.clips[j].labels) != set(clip.labels)]
            if others:
                labels = ", ".join(others[0].labels) or "nothing"
                found[i] = (
                    f"labelled {', '.join(clip.labels) or 'nothing'} here and {labels} as {others[0]}: the same file"
                )
    return found


def _identity(path: Path) -> object:
    """Return what two paths to one file have in common."""
    found = os.stat(path)
    return (found.st_dev, found.st_ino) if found.st_ino else os.path.realpath(path)


def _by_row(clip: Clip) -> str:
    return "" if clip.row is None else f" by row {clip.row}"
