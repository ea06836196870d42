"""`prepare`: from a manifest to a packed corpus, in parallel, resumable at any moment, the same bytes every time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError, choices
from audio_cls.data.audio import MIN_SECONDS
from audio_cls.data.corpus import Corpus
from audio_cls.data.faults import clip_faults
from audio_cls.data.index import FORMAT_VERSION, content_digest
from audio_cls.data.manifest import Clip, Manifest, display_name
from audio_cls.data.rates import SampleRate, advice, check_rate, choose_rate
from audio_cls.data.remarks import corpus_notes
from audio_cls.data.store import Entry, PartialStore, lock, publish
from audio_cls.data.workers import WorkerDied, ordered_map, usable_cores

__all__ = ["BadClip", "PrepareReport", "Progress", "prepare"]

Progress = Callable[[int, int, str], None]
_MIN_CLIPS_PER_WORKER = 16  # below that a worker's start costs more than it saves
_STATED = 10
_LONGEST_PATH = 300  # characters that are shown


@dataclass(frozen=True)
class BadClip:
    """A clip that cannot be used, and why."""

    id: str
    path: Path
    row: int | None
    reason: str

    def __str__(self) -> str:
        where = "" if self.row is None else f" (row {self.row})"
        return f"{_short(display_name(self.path))}{where}: {self.reason}"


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did.

    Attributes:
        corpus: the corpus, opened.
        bad: the clips left out, in the order of the manifest.
        n: clips in the corpus.
        seconds: wall time.
        decoded: clips decoded by this call; 0 when there was nothing to do.
        turned_down: clips whose level was lowered to keep them from clipping.
        rate_reason: why the corpus has its sample rate.
        notes: what else should be known: of the rate, of the layout, of groups and identical clips.
    """

    corpus: Corpus
    bad: tuple[BadClip, ...]
    n: int
    seconds: float
    decoded: int
    turned_down: int
    rate_reason: str
    notes: tuple[str, ...]


def prepare(
    manifest: Manifest,
    directory: Path | str,
    *,
    sample_rate: SampleRate = "auto",
    workers: int | None = None,
    on_bad: str = "skip",
    max_seconds: float | None = None,
    min_seconds: float = MIN_SECONDS,
    progress: Progress | None = None,
) -> PrepareReport:
    """Decode every clip of a manifest into the corpus at `directory`.

    Clips are in the order of the manifest, and the bytes do not depend on the number of workers or on interruptions.
    Killed at any moment, the same call continues where it stopped; with nothing changed it does nothing (files are compared
    by size and modification time) but compare the samples with their checksums, and decode damaged clips again. When
    labels, folds or some files have changed, clips already decoded are used again.

    Args:
        sample_rate: hertz of the corpus; "auto" takes that of most files, 16 kHz at most, or that which the corpus has.
        workers: processes; None takes the usable cores.
        on_bad: "skip" leaves bad clips out and reports them, "refuse" raises once all clips have been looked at.
        max_seconds: longer clips are cut at their end.
        min_seconds: shorter clips are bad.
        progress: called with (done, total, what) as clips are finished.

    Raises:
        UserError: with `on_bad="refuse"` and any bad clip (what was decoded is kept for the next call), with no usable clip,
            with a wrong argument, or where the directory holds the corpus of another data set.
    """
    if on_bad not in ("skip", "refuse"):
        raise UserError(f"on_bad={on_bad!r}: {choices(on_bad, ('skip', 'refuse'))}")
    if max_seconds is not None and not min_seconds <= max_seconds < math.inf:
        raise UserError(f"max_seconds={max_seconds} (--max-seconds): a number of seconds, {min_seconds:g} or more")
    started, directory, tell = time.perf_counter(), Path(directory), progress or (lambda done, total, what: None)
    check_rate(sample_rate)
    with lock(directory, lambda: tell(0, len(manifest), "waiting for another process that prepares this corpus")):
        publish(directory, None, None)
        choice = choose_rate(manifest, sample_rate, directory, workers or usable_cores(), tell)
        previous = _previous(manifest, directory)
        request = {"sample_rate": choice.sample_rate, "max_seconds": max_seconds, "min_seconds": min_seconds}
        keys = [_key(manifest, clip, request) for clip in manifest.clips]
        fingerprint = _fingerprint(manifest, keys, request)
        decoded, damaged = 0, [] if previous is None else previous.damaged(lambda done, n, what: tell(0, n, what))
        if previous is None or previous.fingerprint != fingerprint or damaged:
            faults = clip_faults(manifest)
            jobs = {
                key: clip for i, (key, clip) in enumerate(zip(keys, manifest.clips, strict=True)) if i not in faults
            }
            store = PartialStore(directory)
            store.note_rate(choice.sample_rate)
            try:
                known = {} if previous is None else _entries(previous, set(damaged))
                todo = {key: clip for key, clip in jobs.items() if key not in store.entries and key not in known}
                decoded = len(todo)
                died = _decode(todo, store, request, workers, len(manifest), tell)
                store.sync()
            finally:
                store.close()
            bad, good = [], []
            for i, (key, clip) in enumerate(zip(keys, manifest.clips, strict=True)):
                entry = store.entries.get(key) or known.get(key) or {}
                reason = faults.get(i) or died.get(key) or entry.get("bad")
                if reason:
                    bad.append(BadClip(clip.id, clip.path, clip.row, reason))
                else:
                    path = store.path if key in store.entries else known[key]["path"]
                    good.append((clip, path, entry))
            if not good and previous is None:
                _leave_nothing(directory)
            _refuse(manifest, bad, on_bad, len(good))
            samples = store.in_order([(path, entry) for _, path, entry in good])
            publish(directory, _index(manifest, good, bad, request, "" if died else fingerprint), samples)
        elif (directory / "partial").exists():  # left by a call with other settings, given up since
            shutil.rmtree(directory / "partial", ignore_errors=True)
        corpus = Corpus.open(directory)
    notes = tuple(note for note in (advice(corpus), manifest.note, *corpus_notes(corpus)) if note)
    root = manifest.root or Path()
    left_out = tuple(BadClip(i, root / p, row, reason) for i, p, row, reason in corpus.bad)
    _refuse(manifest, left_out, on_bad, len(corpus))
    tell(len(manifest), len(manifest), "done")
    seconds, turned_down = time.perf_counter() - started, int((corpus.gains < 1.0).sum())
    return PrepareReport(corpus, left_out, len(corpus), seconds, decoded, turned_down, choice.reason, notes)


def _decode(
    todo: dict[str, Clip],
    store: PartialStore,
    request: dict[str, Any],
    workers: int | None,
    total: int,
    tell: Progress,
) -> dict[str, str]:
    """Decode into the store; returns what killed its worker, by key. That is not kept: the next call tries it again."""
    died: dict[str, str] = {}
    n_workers = min(workers or usable_cores(), 1 + len(todo) // _MIN_CLIPS_PER_WORKER)
    ready = total - len(todo)
    tell(ready, total, "decoding")
    requests = ({"path": str(c.path), "start": c.start, "end": c.end, **request} for c in todo.values())
    replies = ordered_map("audio_cls.data.audio:pack_job", requests, n_workers)
    for done, (key, clip, reply) in enumerate(zip(todo, todo.values(), replies, strict=True), start=ready + 1):
        if isinstance(reply, WorkerDied):
            died[key] = f"could not be decoded: {reply}"
        else:
            store.add({"key": key, **reply[0]}, reply[1])
        tell(done, total, clip.id)
    return died


def _previous(manifest: Manifest, directory: Path) -> Corpus | None:
    if not (directory / "index.json").exists():
        return None
    try:
        corpus = Corpus.open(directory, check=False)
    except UserError:
        return None  # its index is damaged or of an older format: it is being prepared again
    if corpus.name != manifest.name:
        raise UserError(
            f"{directory} holds the corpus {corpus.name!r}, asked was {manifest.name!r}: "
            "choose another directory, or remove this one"
        )
    return corpus


def _leave_nothing(directory: Path) -> None:
    """Remove a folder in which nothing was packed, unless something else is in it."""
    shutil.rmtree(directory / "partial", ignore_errors=True)
    (directory / ".lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def _entries(corpus: Corpus, damaged: set[int]) -> dict[str, Entry]:
    """Return the clips of an older corpus that are still what was packed, by key."""
    c = corpus.index["columns"]
    names = ("key", "offset", "length", "crc", "rate", "channels", "gain")
    columns = {**c, "offset": corpus.offsets.tolist()}
    rows = enumerate(zip(*(columns[name] for name in names), strict=True))
    return {
        row[0]: {**dict(zip(names, row, strict=True)), "path": corpus.samples_path}
        for i, row in rows
        if i not in damaged
    }


def _key(manifest: Manifest, clip: Clip, request: dict[str, Any]) -> str:
    """Return what decoding a clip depends on: the file (by path, size and time), the part of it, and the settings."""
    try:
        stat = clip.path.stat()
        state: tuple[int, int] | None = (stat.st_size, stat.st_mtime_ns)
    except (OSError, ValueError):
        state = None
    text = json.dumps([manifest.relative(clip), state, clip.start, clip.end, *request.values(), FORMAT_VERSION])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _fingerprint(manifest: Manifest, keys: list[str], request: dict[str, Any]) -> str:
    head = [manifest.name, manifest.task, manifest.classes, manifest.source, manifest.note, request, FORMAT_VERSION]
    digest = hashlib.sha256(json.dumps(head).encode())
    for key, c in zip(keys, manifest.clips, strict=True):
        digest.update(json.dumps([key, c.id, c.labels, c.fold, c.split, c.group, c.row]).encode())
    return digest.hexdigest()


def _refuse(manifest: Manifest, bad: list[BadClip] | tuple[BadClip, ...], on_bad: str, n_good: int) -> None:
    if not bad or (on_bad == "skip" and n_good):
        return
    listed = "\n".join(f"  {clip}" for clip in bad[:_STATED])
    more = f"\n  ... and {len(bad) - _STATED} more" if len(bad) > _STATED else ""
    way_on = (
        'Mend them, or leave them out: --on-bad skip (in Python: on_bad="skip").' if n_good else "No clip can be used."
    )
    raise UserError(f"{manifest.source}: {len(bad)} of {len(manifest)} clips are bad. {way_on}\n{listed}{more}")


def _short(path: str) -> str:
    return path if len(path) <= _LONGEST_PATH else f"{path[:60]}...{path[-20:]} ({len(path):,} characters)"


def _index(
    manifest: Manifest,
    good: list[tuple[Clip, Path, Entry]],
    bad: list[BadClip],
    request: dict[str, Any],
    fingerprint: str,
) -> dict[str, Any]:
    number = {name: k for k, name in enumerate(manifest.classes)}
    columns: dict[str, list[Any]] = {
        "id": [c.id for c, _, _ in good],
        "path": [manifest.relative(c) for c, _, _ in good],
        "labels": [sorted({number[label] for label in c.labels}) for c, _, _ in good],
        **{name: [getattr(c, name) for c, _, _ in good] for name in ("fold", "split", "group", "start", "end", "row")},
        **{
            name: [entry[name] for _, _, entry in good] for name in ("length", "crc", "rate", "channels", "gain", "key")
        },
    }
    root = manifest.root
    index: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "name": manifest.name,
        "task": manifest.task,
        "classes": list(manifest.classes),
        "sample_rate": request["sample_rate"],
        "max_seconds": request["max_seconds"],
        "n": len(good),
        "source": manifest.source,
        "note": manifest.note,
        **({} if manifest.group_pattern is None else {"group_pattern": manifest.group_pattern}),
        "root": None if root is None else root.as_posix(),
        "fingerprint": fingerprint,
        "bad": [[b.id, manifest.relative(Clip(b.id, b.path, ())), b.row, b.reason] for b in bad],
        "columns": columns,
    }
    digest = content_digest(index)
    return {**index, "digest": digest, "samples": f"samples-{digest[:16]}.i16"}
