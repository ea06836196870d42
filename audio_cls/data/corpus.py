"""The packed corpus: every clip of a data set decoded once, in one memory-mapped file that trainings share."""

from __future__ import annotations

import shlex
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError
from audio_cls.data import identical
from audio_cls.data.audio import to_float
from audio_cls.data.beside import kept_beside
from audio_cls.data.index import content_digest, read_index
from audio_cls.data.manifest import Clip

__all__ = ["Corpus", "DamagedCorpus"]

_SAMPLE_BYTES = 8 << 20  # checked on each opening: about 5 ms where the file is cached
_STATED = 10


class DamagedCorpus(UserError):
    """Samples that are not what was packed; the message names the clips and the command that repairs the corpus."""


class Corpus:
    """A prepared data set, opened for reading.

    Opening reads the index and a sample of the clips. The others are paged in as they are used, and each is compared with
    its checksum the first time that a process reads it (`samples_of`, `waveform`).

    Attributes:
        directory: where it lies (nothing in it depends on where that is).
        name, task, classes, sample_rate: as prepared; `task` is "multiclass" or "multilabel".
        digest: SHA-256 over audio, labels, folds, splits, groups and sample rate; equal digests, equal data.
        source, note: which layout it was read from, and what its reader remarked.
        offsets, lengths: (n,) int64, each clip's place in `samples`.
        folds: (n,) int64, -1 where the data set names none.
        splits, groups: (n,) tuples of names or None.
        source_rates, source_channels: (n,) int64, what the original files held.
        gains: (n,) float64, below 1 where a clip was turned down to keep it from clipping.
        crcs: (n,) int64, CRC-32 of each clip's samples.
        bad: the clips that were left out: (id, path, row, reason).
        index, samples_path: what lies on disk, see `store`.
    """

    def __init__(self, directory: Path, index: dict[str, Any]) -> None:
        columns = index["columns"]
        self.directory = directory
        self.name: str = index["name"]
        self.task: str = index["task"]
        self.classes: tuple[str, ...] = tuple(index["classes"])
        self.sample_rate: int = index["sample_rate"]
        self.digest: str = index["digest"]
        self.fingerprint: str = index["fingerprint"]
        self.source: str = index["source"]
        self.note: str = index["note"]
        self.lengths = np.asarray(columns["length"], dtype=np.int64)
        self.offsets = (
            np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)[:-1]]) if index["n"] else self.lengths
        )
        self.folds = np.asarray([-1 if f is None else f for f in columns["fold"]], dtype=np.int64)
        self.splits: tuple[str | None, ...] = tuple(columns["split"])
        self.groups: tuple[str | None, ...] = tuple(columns["group"])
        self.source_rates = np.asarray(columns["rate"], dtype=np.int64)
        self.source_channels = np.asarray(columns["channels"], dtype=np.int64)
        self.gains = np.asarray(columns["gain"], dtype=np.float64)
        self.crcs = np.asarray(columns["crc"], dtype=np.int64)
        self.bad: tuple[tuple[str, str, int | None, str], ...] = tuple(tuple(b) for b in index["bad"])
        self.samples_path = directory / index["samples"]
        self._checked = np.zeros(len(self.lengths), dtype=bool)
        self._root = index["root"]
        self.index = index

    @classmethod
    def open(cls, directory: Path | str, *, check: bool = True) -> Corpus:
        """Open a prepared corpus and, with `check`, compare a sample of its clips with their checksums.

        Raises:
            UserError: none there, of another format version, its index damaged, or its samples missing or cut short.
            DamagedCorpus: a clip of the sample is not what was packed. All clips are then looked at, and named.
        """
        directory = Path(directory)
        index = read_index(directory)
        try:
            corpus = cls(directory, index)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{directory / 'index.json'}: damaged ({error}); prepare the corpus again") from None
        expected = 2 * int(corpus.lengths.sum())
        try:
            found = corpus.samples_path.stat().st_size
        except OSError:
            raise UserError(
                f"{corpus.samples_path}: missing, although the index names it; prepare the corpus again"
            ) from None
        if found != expected:
            raise UserError(
                f"{corpus.samples_path}: {found} bytes, the index tells {expected}; prepare the corpus again"
            )
        if check:
            corpus.check(corpus._sample())
        return corpus

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        return f"Corpus({self.name!r}, {len(self)} clips, {len(self.classes)} classes, {self.task}, {self.digest[:12]})"

    @cached_property
    def samples(self) -> np.memmap[Any, np.dtype[np.int16]]:
        """(total,) int16, read-only, all clips back to back."""
        return np.memmap(self.samples_path, dtype="<i2", mode="r")

    @cached_property
    def label_lists(self) -> list[list[int]]:
        """The indices of each clip's classes."""
        lists: list[list[int]] = self.index["columns"]["labels"]
        return lists

    @cached_property
    def targets(self) -> NDArray[np.float32]:
        """(n, n_classes) float32, 1 where the clip has the class."""
        targets = np.zeros((len(self), len(self.classes)), dtype=np.float32)
        counts = np.asarray([len(labels) for labels in self.label_lists])
        flat = np.asarray([label for labels in self.label_lists for label in labels], dtype=np.int64)
        targets[np.repeat(np.arange(len(self)), counts), flat] = 1.0
        return targets

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """The clip table, in the order of the arrays; paths are where the files were when the corpus was prepared."""
        root = Path(self._root) if self._root else Path()
        c = self.index["columns"]
        rows = zip(
            c["id"],
            c["path"],
            c["labels"],
            c["fold"],
            c["split"],
            c["group"],
            c["start"],
            c["end"],
            c["row"],
            strict=True,
        )
        return tuple(Clip(i, root / p, tuple(self.classes[k] for k in labels), *rest) for i, p, labels, *rest in rows)

    @cached_property
    def identical(self) -> tuple[tuple[int, ...], ...]:
        """Return the sets of clips with the same audio (`data.identical`), ascending; empty for most corpora.

        Computed when first asked for (1 GB/s on one core) and kept beside the samples.

        Raises:
            DamagedCorpus: naming all clips that are damaged.
        """

        def find() -> list[list[int]]:
            return identical.find_identical(range(len(self)), self.samples_of, self.sample_rate)

        found = kept_beside(self.directory, "identical", self.digest, identical.VERSION, find)
        return tuple(tuple(clips) for clips in found)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.index["columns"]["id"])

    @property
    def seconds(self) -> NDArray[np.float64]:
        """(n,) durations."""
        return self.lengths / self.sample_rate

    def samples_of(self, i: int) -> NDArray[np.int16]:
        """Return the samples of one clip, (length,) int16, compared with its checksum when this process reads it first.

        Raises:
            DamagedCorpus: naming all clips that are damaged.
        """
        if not self._checked[i]:
            self.check([i])
        return self._packed(i)

    def waveform(self, i: int) -> NDArray[np.float32]:
        """Return one clip, (length,) float32 in [-1, 1); checked as by `samples_of`."""
        return to_float(self.samples_of(i))

    def class_counts(self, indices: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
        """(n_classes,) clips of each class, of all clips or of the given ones."""
        targets = self.targets if indices is None else self.targets[indices]
        return targets.sum(axis=0, dtype=np.float64).astype(np.int64)

    def resampling_groups(self, indices: Sequence[int] | NDArray[np.integer]) -> list[str]:
        """Return the group of each of these clips, for a bootstrap; a clip without one is a group of its own."""
        return [self.groups[int(i)] or f"\0{int(i)}" for i in indices]

    def check(self, clips: Iterable[int]) -> None:
        """Compare clips with their checksums, those left out that this process has checked before (1.6 GB/s on one core).

        Raises:
            DamagedCorpus: naming all clips of the corpus that are damaged, not only those of `clips`.
        """
        for i in clips:
            if not self._checked[i]:
                self._checked[i] = self._matches(i)
                if not self._checked[i]:
                    raise self._damage(self.damaged())

    def damaged(self, progress: Callable[[int, int, str], None] | None = None) -> list[int]:
        """Return the clips that are not what was packed, by reading every sample. `progress` is called with
        (done, total, what).
        """
        wrong = []
        for i in range(len(self)):
            if progress is not None and i % 100 == 0:
                progress(i, len(self), "comparing with checksums")
            if not self._matches(i):
                wrong.append(i)
        return wrong

    def verify(self, progress: Callable[[int, int, str], None] | None = None) -> None:
        """Read every sample and compare each clip's checksum, then the digest. `progress` is called as by `damaged`.

        Raises:
            DamagedCorpus: naming the first ten clips that are not what was packed, and how many there are.
            UserError: the digest does not belong to the index.
        """
        wrong = self.damaged(progress)
        if wrong:
            raise self._damage(wrong)
        if content_digest(self.index) != self.digest:
            raise UserError(f"{self.directory / 'index.json'}: its digest is of other content; {self._repair()}")

    def _packed(self, i: int) -> NDArray[np.int16]:
        offset = int(self.offsets[i])
        return self.samples[offset : offset + int(self.lengths[i])]

    def _matches(self, i: int) -> bool:
        return zlib.crc32(self._packed(i).data) == self.crcs[i]

    def _sample(self) -> list[int]:
        """Return clips to look at on opening, spread at random over the file: the same at each opening, some
        megabytes at most.
        """
        order = np.random.default_rng(int(self.digest[:15], 16)).permutation(len(self))
        return order[np.cumsum(2 * self.lengths[order]) <= _SAMPLE_BYTES].tolist()

    def _damage(self, wrong: list[int]) -> DamagedCorpus:
        named = ", ".join(self.ids[i] for i in wrong[:_STATED])
        more = f" and {len(wrong) - _STATED} more" if len(wrong) > _STATED else ""
        return DamagedCorpus(
            f"{self.samples_path}: {len(wrong)} of {len(self)} clips are damaged: {named}{more}; {self._repair()}"
        )

    def _repair(self) -> str:
        """Return the command that packs the damaged clips again, from what the index tells of the one that made them."""
        layout, _, rest = self.source.partition(":")
        options = ["--name", self.directory.name, "--sample-rate", str(self.sample_rate)]
        if self.index.get("max_seconds") is not None:
            options += ["--max-seconds", f"{self.index['max_seconds']:g}"]
        if layout == "esc50" and rest != "all":
            options += ["--subset", rest]
        if isinstance(self.index.get("group_pattern"), str):
            options += ["--group-pattern", self.index["group_pattern"]]
        source = str(Path(self._root or "SOURCE") / (rest if layout == "csv" else ""))
        return f"repair it with: audio-cls data prepare {shlex.join([source, *options])}"
