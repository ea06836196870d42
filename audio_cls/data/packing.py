"""`prepare`: from a manifest to a packed corpus, in parallel, resumable at any moment, the same bytes every time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, tee
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError, choices
from audio_cls.core.payload import Payload, waveform_payload
from audio_cls.data.audio import MIN_SECONDS
from audio_cls.data.columns import write_columns
from audio_cls.data.corpus import Corpus
from audio_cls.data.decoding import close_reader
from audio_cls.data.faults import clip_faults
from audio_cls.data.index import FORMAT_VERSION
from audio_cls.data.index_making import make_index
from audio_cls.data.manifest import Clip, Manifest, display_name
from audio_cls.data.rates import SampleRate, advice, check_rate, choose_rate
from audio_cls.data.remarks import corpus_notes
from audio_cls.data.store import Entry, PartialStore, lock, publish
from audio_cls.data.workers import Reply, WorkerDied, ordered_map, usable_cores

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
    trim_db: float | None = None,
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
        trim_db: silence at both ends of a clip, so many dB below its loudest 10 ms, is cut off (`audio.trim_silence`); None keeps it.
        progress: called with (done, total, what) as clips are finished.

    Raises:
        UserError: with `on_bad="refuse"` and any bad clip (what was decoded is kept for the next call), with no usable clip,
            with a wrong argument, or where the directory holds the corpus of another data set.
    """
    if on_bad not in ("skip", "refuse"):
        raise UserError(f"on_bad={on_bad!r}: {choices(on_bad, ('skip', 'refuse'))}")
    if max_seconds is not None and not min_seconds <= max_seconds < math.inf:
        raise UserError(f"max_seconds={max_seconds} (--max-seconds): a number of seconds, {min_seconds:g} or more")
    if trim_db is not None and not 0 < trim_db < math.inf:
        raise UserError(f"trim_db={trim_db} (--trim-db): a number of decibels above 0, such as 60")
    started, directory, tell = time.perf_counter(), Path(directory), progress or (lambda done, total, what: None)
    check_rate(sample_rate)
    with lock(directory, lambda: tell(0, len(manifest), "waiting for another process that prepares this corpus")):
        publish(directory, None, None)
        payload, rate, rate_reason = _choose_payload(manifest, sample_rate, directory, workers or usable_cores(), tell)
        previous = _previous(manifest, directory)
        request = {"sample_rate": rate, "max_seconds": max_seconds, "min_seconds": min_seconds}
        if trim_db is not None:
            if not payload.is_waveform:
                raise UserError(
                    f"trim_db={trim_db:g} (--trim-db): {manifest.source} holds no waveforms but {payload.describe()}; leave it out"
                )
            request["trim_db"] = trim_db
        keys = _keys(manifest, request)
        fingerprint = _fingerprint(manifest, keys, request)
        decoded, damaged = 0, [] if previous is None else previous.damaged(lambda done, n, what: tell(0, n, what))
        if previous is None or previous.fingerprint != fingerprint or damaged:
            faults = clip_faults(manifest)
            jobs = {
                key: clip for i, (key, clip) in enumerate(zip(keys, manifest.clips, strict=True)) if i not in faults
            }
            store = PartialStore(directory, payload)
            if rate is not None:
                store.note_rate(rate)
            try:
                known = {} if previous is None else _entries(previous, set(damaged))
                todo = {key: clip for key, clip in jobs.items() if key not in store.entries and key not in known}
                decoded = len(todo)
                died = _decode(todo, manifest, store, request, workers, tell)
                store.sync()
            finally:
                store.close()
            bad, good, places = list[tuple[int, str]](), list[tuple[int, Entry]](), list[tuple[Path, Entry]]()
            for i, key in enumerate(keys):
                entry = store.entries.get(key) or known.get(key) or {}
                reason = faults.get(i) or died.get(key) or entry.get("bad")
                if reason:
                    bad.append((i, reason))
                else:
                    path = store.path if key in store.entries else known[key]["path"]
                    good.append((i, entry))
                    places.append((path, entry))
            if not good and previous is None:
                _leave_nothing(directory)
            _refuse(manifest, [_bad_clip(manifest.clips[i], reason) for i, reason in bad], on_bad, len(good))
            samples = store.in_order(places)
            publish(directory, make_index(manifest, good, bad, request, payload, "" if died else fingerprint), samples)
        else:
            write_columns(directory, previous.index)  # of a corpus that an older version packed
            if (directory / "partial").exists():  # left by a call with other settings, given up since
                shutil.rmtree(directory / "partial", ignore_errors=True)
        corpus = Corpus.open(directory)
    rate_note = advice(corpus) if payload.is_waveform else ""
    notes = tuple(note for note in (rate_note, manifest.note, *corpus_notes(corpus)) if note)
    root = manifest.root or Path()
    left_out = tuple(BadClip(i, root / p, row, reason) for i, p, row, reason in corpus.bad)
    _refuse(manifest, left_out, on_bad, len(corpus))
    tell(len(manifest), len(manifest), "done")
    seconds, turned_down = time.perf_counter() - started, int((corpus.gains < 1.0).sum())
    return PrepareReport(corpus, left_out, len(corpus), seconds, decoded, turned_down, rate_reason, notes)


def _choose_payload(
    manifest: Manifest, asked: SampleRate, directory: Path, workers: int, tell: Progress
) -> tuple[Payload, int | None, str]:
    """Return what the rows of the corpus are, the rate that audio is resampled to, and where the rate comes from."""
    codec = manifest.codec
    if codec is None or codec.reads_audio:
        choice = choose_rate(manifest, asked, directory, workers, tell)
        return waveform_payload(choice.sample_rate), choice.sample_rate, choice.reason
    payload = codec.payload(None)
    if asked != "auto":
        raise UserError(
            f"sample_rate={asked} (--sample-rate): {manifest.source} holds no waveforms but {payload.describe()}; leave it out"
        )
    return payload, None, "as the data have it"


def _decode(
    todo: dict[str, Clip],
    manifest: Manifest,
    store: PartialStore,
    request: dict[str, Any],
    workers: int | None,
    tell: Progress,
) -> dict[str, str]:
    """Decode into the store; returns what killed its worker, by key. That is not kept: the next call tries it again.

    A worker is given some clips of one file at a time. Where it dies of them, they are tried one by one.
    """
    died: dict[str, str] = {}
    codec, total = manifest.codec, len(manifest)
    n_workers = min(workers or usable_cores(), 1 + len(todo) // _MIN_CLIPS_PER_WORKER)
    done = total - len(todo)
    tell(done, total, "decoding")
    head = {"codec": None if codec is None else codec.to_dict(), "request": request}

    def run(chunks: Iterable[list[str]], n_workers: int) -> Iterator[tuple[list[str], Reply | WorkerDied]]:
        given, jobs = tee(chunks)
        replies = ordered_map(
            "audio_cls.data.decoding:decode_job", (_job(head, todo, chunk) for chunk in jobs), n_workers
        )
        return zip(given, replies, strict=True)

    try:
        for chunk, reply in run(_chunks(todo, 1 if codec is None else codec.clips_per_job), n_workers):
            parts = [(chunk, reply)]
            if isinstance(reply, WorkerDied) and len(chunk) > 1:
                parts = list(run([[key] for key in chunk], 2))  # in workers of their own
            for keys, answer in parts:
                if isinstance(answer, WorkerDied):
                    died[keys[0]] = f"could not be decoded: {answer}"
                else:
                    _keep(store, keys, answer)
            done += len(chunk)
            tell(done, total, todo[chunk[-1]].id)
    finally:
        close_reader()
    return died


def _chunks(todo: dict[str, Clip], most: int) -> Iterator[list[str]]:
    """Yield keys of clips that follow each other and lie in one file, up to `most` at a time."""
    for _, clips in groupby(todo.items(), key=lambda item: item[1].path):
        keys = [key for key, _ in clips]
        yield from (keys[k : k + most] for k in range(0, len(keys), most))


def _job(head: dict[str, Any], todo: dict[str, Clip], keys: list[str]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for key in keys:
        clip = todo[key]
        parts.append({"start": clip.start, "end": clip.end, "position": clip.position})
    return {**head, "path": str(todo[keys[0]].path), "parts": parts}


def _keep(store: PartialStore, keys: list[str], reply: Reply) -> None:
    facts, payload = reply
    start = 0
    for key, clip in zip(keys, facts["clips"], strict=True):
        size = store.row_bytes * clip.get("length", 0)
        store.add({"key": key, **clip}, payload[start : start + size])
        start += size


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
    facts = ("rate", "channels", "gain") if corpus.payload.is_waveform else ()
    names = ("key", "offset", "length", "crc", *facts)
    columns = {**c, "offset": corpus.offsets.tolist()}
    rows = enumerate(zip(*(columns[name] for name in names), strict=True))
    return {
        row[0]: {**dict(zip(names, row, strict=True)), "path": corpus.samples_path}
        for i, row in rows
        if i not in damaged
    }


def _keys(manifest: Manifest, request: dict[str, Any]) -> list[str]:
    """Return what decoding each clip depends on: the file (by path, size and time), the part of it, and the settings."""
    codec = None if manifest.codec is None else manifest.codec.to_dict()
    states: dict[Path, tuple[str, tuple[int, int] | None]] = {}
    keys = []
    for clip in manifest.clips:
        if clip.path not in states:
            states[clip.path] = manifest.relative(clip), _state(clip.path)
        parts = [*states[clip.path], clip.start, clip.end, *request.values(), FORMAT_VERSION]
        text = json.dumps(parts if codec is None else [*parts, codec, clip.position])
        keys.append(hashlib.blake2b(text.encode(), digest_size=12).hexdigest())
    return keys


def _state(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns
    except (OSError, ValueError):
        return None


def _fingerprint(manifest: Manifest, keys: list[str], request: dict[str, Any]) -> str:
    head: list[Any] = [manifest.name, manifest.task, manifest.classes, manifest.source, manifest.note, request]
    head += [FORMAT_VERSION, *([dict(manifest.extra), _lists(manifest)] if manifest.extra or manifest.lists else [])]
    head += [{name: list(families) for name, families in manifest.families.items()}] if manifest.families else []
    digest = hashlib.sha256(json.dumps(head).encode())
    for key, c in zip(keys, manifest.clips, strict=True):
        digest.update(json.dumps([key, c.id, c.labels, c.fold, c.split, c.group, c.row]).encode())
    return digest.hexdigest()


def _lists(manifest: Manifest) -> dict[str, dict[str, list[str]]]:
    return {str(fold): {side: list(ids) for side, ids in sides.items()} for fold, sides in manifest.lists.items()}


def _bad_clip(clip: Clip, reason: str) -> BadClip:
    return BadClip(clip.id, clip.path, clip.row, reason)


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
