"""The index of a corpus, from a manifest and what was decoded of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from audio_cls.core.payload import Payload
from audio_cls.data.index import FORMAT_VERSION, ROWS_VERSION, content_digest
from audio_cls.data.manifest import Clip, Manifest

if TYPE_CHECKING:
    from audio_cls.data.store import Entry

__all__ = ["make_index"]


def make_index(
    manifest: Manifest,
    good: Sequence[tuple[int, Entry]],
    bad: Sequence[tuple[int, str]],
    request: dict[str, Any],
    payload: Payload,
    fingerprint: str,
) -> dict[str, Any]:
    """Return the index with its digest and the name of the file of rows.

    Args:
        good: the clips of the corpus: place in the manifest, and what the store knows of its rows.
        bad: the clips left out: place in the manifest, and the reason.
        request: what was asked of all clips: `sample_rate`, `max_seconds`.
        payload: what the rows are.
        fingerprint: of manifest and request.
    """
    clips = [manifest.clips[i] for i, _ in good]
    lists = _lists(manifest, clips)
    index: dict[str, Any] = {
        "version": FORMAT_VERSION if payload.is_waveform and not lists else ROWS_VERSION,
        "name": manifest.name,
        "task": manifest.task,
        "classes": list(manifest.classes),
        **({"sample_rate": request["sample_rate"]} if payload.is_waveform else {"payload": payload.to_dict()}),
        "max_seconds": request["max_seconds"],
        **({"trim_db": request["trim_db"]} if "trim_db" in request else {}),
        "n": len(good),
        "source": manifest.source,
        "note": manifest.note,
        **({} if manifest.group_pattern is None else {"group_pattern": manifest.group_pattern}),
        "root": None if manifest.root is None else manifest.root.as_posix(),
        "fingerprint": fingerprint,
        "bad": [[c.id, manifest.relative(c), c.row, why] for c, why in ((manifest.clips[i], why) for i, why in bad)],
        **({"extra": {k: [v[i] for i, _ in good] for k, v in manifest.extra.items()}} if manifest.extra else {}),
        **({"lists": lists} if lists else {}),
        **({"families": {k: list(v) for k, v in manifest.families.items()}} if manifest.families else {}),
        **({"options": dict(manifest.options)} if manifest.options else {}),
        "columns": _columns(manifest, clips, [entry for _, entry in good], payload),
    }
    digest = content_digest(index)
    return {**index, "digest": digest, "samples": f"samples-{digest[:16]}.{payload.suffix}"}


def _columns(manifest: Manifest, clips: list[Clip], entries: list[Entry], payload: Payload) -> dict[str, list[Any]]:
    number = {name: k for k, name in enumerate(manifest.classes)}
    told = ("fold", "split", "group", "start", "end", "row")
    facts = ("length", "crc", "rate", "channels", "gain", "key") if payload.is_waveform else ("length", "crc", "key")
    positions = [clip.position for clip in clips]
    return {
        "id": [clip.id for clip in clips],
        "path": [manifest.relative(clip) for clip in clips],
        "labels": [sorted({number[label] for label in clip.labels}) for clip in clips],
        **{name: [getattr(clip, name) for clip in clips] for name in told},
        **({"position": positions} if any(p is not None for p in positions) else {}),
        **{name: [entry[name] for entry in entries] for name in facts},
    }


def _lists(manifest: Manifest, clips: list[Clip]) -> dict[str, dict[str, list[int]]]:
    """Return fold -> side -> rows of the corpus, ascending; clips that were left out stand in none."""
    row = {clip.id: i for i, clip in enumerate(clips)}
    return {
        str(fold): {side: sorted({row[name] for name in ids if name in row}) for side, ids in sorted(sides.items())}
        for fold, sides in sorted(manifest.lists.items())
    }
