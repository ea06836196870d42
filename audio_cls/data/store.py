"""The packed corpus on disk: one index, one file of samples, and the store that survives an interruption.

    <corpus>/index.json             columns by clip, classes, digest; names the samples file
    <corpus>/samples-<digest>.i16   mono int16, little endian, clips back to back in the order of the manifest
                                    (rows of other types likewise: .u8, .u16, .f32)
    <corpus>/partial/               while `prepare` runs: decoded clips in any order, a journal of them, and their rate

The index is replaced last, by a rename: at any moment it names a complete samples file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audio_cls.core.locks import file_lock
from audio_cls.core.payload import Payload
from audio_cls.data.beside import remove_outdated
from audio_cls.data.columns import remove_columns, write_columns
from audio_cls.data.index import payload_of, write_index

__all__ = ["Entry", "PartialStore", "lock", "publish"]

Entry = dict[str, Any]  # key and either "bad" or the facts: offset, length, crc, rate, channels, gain


@contextlib.contextmanager
def lock(directory: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Let one process at a time prepare into a directory. The lock goes with its process, however that ends."""
    directory.mkdir(parents=True, exist_ok=True)
    with file_lock(directory / ".lock", waiting=waiting):
        yield


class PartialStore:
    """Decoded clips, appended in whatever order, each known by its key once its line is in the journal.

    Samples are written before the line that tells of them, so a kill leaves at most a tail that no line knows. On
    opening every clip's checksum is verified; from the first that does not hold, the rest is cut off.
    """

    FSYNC_SECONDS = 5.0

    def __init__(self, directory: Path, payload: Payload) -> None:
        self.directory, self.row_bytes = directory / "partial", payload.row_bytes
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path, self.journal_path = self.directory / f"samples.{payload.suffix}", self.directory / "journal.jsonl"
        self.entries: dict[str, Entry] = {}
        self.size = 0  # bytes of samples that the journal knows
        journal_size = self._recover()
        self._samples = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        self._samples.truncate(self.size)
        self._journal = open(self.journal_path, "ab", buffering=0)  # noqa: SIM115
        self._journal.truncate(journal_size)
        self._synced = time.monotonic()

    def _recover(self) -> int:
        good = 0
        if not self.journal_path.exists() or not self.path.exists():
            return good
        with open(self.journal_path, "rb") as journal, open(self.path, "rb") as samples:
            for line in journal:
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                    if entry is None or (
                        "bad" not in entry and not self._holds(samples.read(self.row_bytes * entry["length"]), entry)
                    ):
                        break
                    self.entries[entry["key"]] = entry
                except (ValueError, KeyError, TypeError):
                    break
                self.size += self.row_bytes * entry.get("length", 0)
                good += len(line)
        return good

    def _holds(self, payload: bytes, entry: Entry) -> bool:
        return len(payload) == self.row_bytes * entry["length"] and zlib.crc32(payload) == entry["crc"]

    def add(self, entry: Entry, payload: bytes) -> None:
        """Append one clip (or, with "bad", what is wrong with it) durably against the end of this process."""
        if payload:
            entry["offset"] = self.size // self.row_bytes
            _write_all(self._samples, payload)
        _write_all(self._journal, json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        self.entries[entry["key"]] = entry
        self.size += len(payload)
        if time.monotonic() - self._synced > self.FSYNC_SECONDS:  # against the end of the machine: at intervals
            self.sync()

    def note_rate(self, sample_rate: int) -> None:
        """Write down the rate of the clips, for a call that continues after an interruption without naming one."""
        (self.directory / "request.json").write_text(json.dumps({"sample_rate": sample_rate}), encoding="utf-8")

    def sync(self) -> None:
        os.fsync(self._samples.fileno())
        os.fsync(self._journal.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        self._samples.close()
        self._journal.close()

    def in_order(self, wanted: Sequence[tuple[Path, Entry]]) -> Path:
        """Return a file that holds the wanted clips back to back: the store itself where it does, else a copy beside it."""
        starts = np.cumsum([0] + [entry["length"] for _, entry in wanted])
        ours = all(path == self.path and entry["offset"] == s for (path, entry), s in zip(wanted, starts, strict=False))
        if ours and self.row_bytes * int(starts[-1]) == self.size:
            return self.path
        target = self.path.with_stem("ordered")
        with open(target, "wb") as out, contextlib.ExitStack() as stack:
            files = {path: stack.enter_context(open(path, "rb")) for path in {path for path, _ in wanted}}
            for path, entry in wanted:
                files[path].seek(self.row_bytes * entry["offset"])
                out.write(files[path].read(self.row_bytes * entry["length"]))
            out.flush()
            os.fsync(out.fileno())
        return target


def publish(directory: Path, index: dict[str, Any] | None, samples: Path | None) -> bool:
    """Make a finished corpus visible: samples first, index last, each by a rename.

    With no index given, resumes a publication that was interrupted between the two renames; False if there is none.
    """
    partial = directory / "partial"
    pending = partial / "index.json"
    if index is None or samples is None:
        try:
            index = json.loads(pending.read_text(encoding="utf-8"))
            expected = payload_of(index).row_bytes * sum(index["columns"]["length"])
            whole = (directory / index["samples"]).stat().st_size == expected
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if not whole:
            return False
    else:
        write_index(pending, index)
        os.replace(samples, directory / index["samples"])
        _sync_directory(directory)
    remove_columns(directory)
    os.replace(pending, directory / "index.json")
    write_columns(directory, index)
    _sync_directory(directory)
    shutil.rmtree(partial, ignore_errors=True)
    for old in directory.glob("samples-*"):
        if old.name != index["samples"]:
            with contextlib.suppress(OSError):  # a reader on a system that does not let go of open files
                old.unlink()
    remove_outdated(directory, index["digest"])
    return True


def _write_all(file: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _sync_directory(directory: Path) -> None:
    with contextlib.suppress(OSError):  # not everywhere can a folder be opened
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
