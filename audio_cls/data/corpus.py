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
from audio_cls.data.columns import LazyColumns, read_columns
from audio_cls.data.index import content_digest, payload_of, read_index
from audio_cls.data.index_views import view_index
from audio_cls.data.manifest import Clip

__all__ = ["Corpus", "DamagedCorpus"]

_SAMPLE_BYTES = 8 << 20  # checked on each opening: about 5 ms where the file is cached
_SAMPLE_CLIPS = 2000  # at most; where clips are that short, more cost milliseconds and find little more
_STATED = 10


class DamagedCorpus(UserError):
    """Samples that are not what was packed; the message names the clips and the command that repairs the corpus."""


class Corpus:
    """A prepared data set, opened for reading.

    Opening reads the index and a sample of the clips. The others are paged in as they are used, and each is compared with
    its checksum the first time that a process reads it (`samples_of`, `waveform`).

    Attributes:
        directory: where it lies (nothing in it depends on where that is).
        name, task, classes: as prepared; `task` is "multiclass" or "multilabel".
        payload: what its rows are: samples, vectors, columns of pixels.
        rate: rows a second.
        sample_rate: of waveforms in Hz; 0 where rows are no waveforms.
        digest: SHA-256 over rows, labels, folds, splits, groups and sample rate; equal digests, equal data.
        source, note: which layout it was read from, and what its reader remarked.
        offsets, lengths: (n,) int64, each clip's rows in `samples`.
        folds: (n,) int64, -1 where the data set names none.
        source_rates, source_channels: (n,) int64, what the original files held; 0 where rows are no waveforms.
        gains: (n,) float64, below 1 where a clip was turned down to keep it from clipping.
        crcs: (n,) int64, CRC-32 of each clip's rows.
        extra: more columns of the data set by name, one value a clip.
        bad: the clips that were left out: (id, path, row, reason).
        index, samples_path: what lies on disk, see `store`.
        viewed: of a view, the corpus and the clips that it holds; else None.
    """

    def __init__(self, directory: Path, index: dict[str, Any]) -> None:
        columns, n = index["columns"], index["n"]

        def numbers(name: str, default: float = 0, dtype: type = np.int64) -> NDArray[Any]:
            if name not in columns:
                return np.full(n, default, dtype)
            if isinstance(columns, LazyColumns) and columns.holds_numbers(name):
                return columns.array(name).astype(dtype, copy=False)
            return np.asarray([-1 if v is None else v for v in columns[name]], dtype)

        self.directory = directory
        self.name: str = index["name"]
        self.task: str = index["task"]
        self.classes: tuple[str, ...] = tuple(index["classes"])
        self.payload = payload_of(index)
        rate = self.payload.rate
        self.rate = int(rate) if float(rate).is_integer() else rate
        self.sample_rate: int = index.get("sample_rate", 0)
        self.digest: str = index["digest"]
        self.fingerprint: str = index["fingerprint"]
        self.source: str = index["source"]
        self.note: str = index["note"]
        self.lengths = numbers("length")
        self.offsets = (
            np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)[:-1]]) if index["n"] else self.lengths
        )
        self.folds = numbers("fold", -1)
        self.source_rates = numbers("rate")
        self.source_channels = numbers("channels")
        self.gains = numbers("gain", 1, np.float64)
        self.crcs = numbers("crc")
        self.bad: tuple[tuple[str, str, int | None, str], ...] = tuple(tuple(b) for b in index["bad"])
        self.extra: dict[str, list[Any]] = index.get("extra", {})
        self.samples_path = directory / index["samples"]
        self._checked = np.zeros(len(self.lengths), dtype=bool)
        self._root = index["root"]
        self.viewed: tuple[Corpus, NDArray[np.int64]] | None = None
        self.index = index

    @classmethod
    def open(cls, directory: Path | str, *, check: bool = True) -> Corpus:
        """Open a prepared corpus and, with `check`, compare a sample of its clips with their checksums.

        Raises:
            UserError: none there, of another format version, its index damaged, or its samples missing or cut short.
            DamagedCorpus: a clip of the sample is not what was packed. All clips are then looked at, and named.
        """
        directory = Path(directory)
        index = read_columns(directory) or read_index(directory)
        try:
            corpus = cls(directory, index)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{directory / 'index.json'}: damaged ({error}); prepare the corpus again") from None
        expected = corpus.payload.row_bytes * int(corpus.lengths.sum())
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
    def samples(self) -> np.memmap[Any, np.dtype[Any]]:
        """(total, *row) as stored, read-only, all clips back to back: (total,) int16 for waveforms."""
        shape = (int(self.lengths.sum()), *self.payload.row)
        return np.memmap(self.samples_path, dtype=self.payload.storage, mode="r", shape=shape)

    def view(
        self,
        clips: NDArray[np.int64],
        *,
        classes: Sequence[str],
        labels: Sequence[Sequence[int]],
        task: str,
        key: str,
    ) -> Corpus:
        """Return some of the clips with other labels, over the same file of rows. Its digest is of this corpus's and of `key`.

        Args:
            clips: (n,) which, ascending.
            classes: the view's, in order.
            labels: (n,) the indices of each clip's classes in the view.
            key: tells one way of relabelling from another.
        """
        made = Corpus(self.directory, view_index(self.index, clips.tolist(), tuple(classes), labels, task, key))
        made.offsets = self.offsets[clips]
        made._checked = self._checked[clips]
        made.__dict__["samples"] = self.samples
        made.viewed = self, clips
        return made

    @cached_property
    def _rows(self) -> NDArray[Any]:
        return self.samples.view(np.ndarray)  # slices of a memmap cost ten times as much

    @cached_property
    def splits(self) -> tuple[str | None, ...]:
        """(n,) names of published sides, or None."""
        return tuple(self.index["columns"]["split"])

    @cached_property
    def groups(self) -> tuple[str | None, ...]:
        """(n,) names of what must not be torn apart, or None."""
        return tuple(self.index["columns"]["group"])

    @cached_property
    def label_lists(self) -> list[list[int]]:
        """The indices of each clip's classes."""
        lists: list[list[int]] = self.index["columns"]["labels"]
        return lists

    @cached_property
    def lists(self) -> dict[int, dict[str, NDArray[np.int64]]]:
        """Fold -> side -> clips (int64, ascending), where folds are published as lists and no partition; else empty."""
        found = self.index.get("lists", {})
        return {int(k): {s: np.asarray(rows, np.int64) for s, rows in sides.items()} for k, sides in found.items()}

    @cached_property
    def targets(self) -> NDArray[np.float32]:
        """(n, n_classes) float32, 1 where the clip has the class."""
        targets = np.zeros((len(self), len(self.classes)), dtype=np.float32)
        columns = self.index["columns"]
        if isinstance(columns, LazyColumns):
            counts, flat = columns.flat_lists("labels")
        else:
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
            c.get("position") or [None] * len(self),
            strict=True,
        )
        return tuple(Clip(i, root / p, tuple(self.classes[k] for k in labels), *rest) for i, p, labels, *rest in rows)

    @cached_property
    def families(self) -> dict[str, tuple[str, ...]]:
        """Class -> the names of its families, where the data set publishes any."""
        return {name: tuple(families) for name, families in self.index.get("families", {}).items()}

    @cached_property
    def family_columns(self) -> dict[str, tuple[int, ...]]:
        """Family -> the columns of its classes in `targets`; empty where the data set publishes no families."""
        found: dict[str, list[int]] = {}
        for column, name in enumerate(self.classes):
            for family in self.families.get(name, ()):
                found.setdefault(family, []).append(column)
        return {family: tuple(columns) for family, columns in found.items()}

    @cached_property
    def identical(self) -> tuple[tuple[int, ...], ...]:
        """Return the sets of clips with the same audio (`data.identical`), ascending; empty for most corpora.

        Computed when first asked for (1 GB/s on one core) and kept beside the samples.

        Raises:
            DamagedCorpus: naming all clips that are damaged.
        """

        if self.viewed is not None:
            base, clips = self.viewed
            place = {int(old): new for new, old in enumerate(clips)}
            sets = (tuple(place[i] for i in found if i in place) for found in base.identical)
            return tuple(found for found in sets if len(found) > 1)

        def find() -> list[list[int]]:
            return identical.find_identical(range(len(self)), self.samples_of, self.sample_rate)

        found = kept_beside(self.directory, "identical", self.digest, identical.VERSION, find)
        return tuple(tuple(clips) for clips in found)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.index["columns"]["id"])

    @property
    def seconds(self) -> NDArray[np.float64]:
        """(n,) durations."""
        return self.lengths / self.rate

    def samples_of(self, i: int) -> NDArray[Any]:
        """Return the rows of one clip as stored, (length, *row), compared with its checksum when this process reads it first.

        Raises:
            DamagedCorpus: naming all clips that are damaged.
        """
        if not self._checked[i]:
            self.check([i])
        return self._packed(i)

    def waveform(self, i: int) -> NDArray[np.float32]:
        """Return one clip of a corpus of waveforms, (length,) float32 in [-1, 1); checked as by `samples_of`."""
        return to_float(self.samples_of(i))

    def values(self, i: int) -> NDArray[np.float32]:
        """Return the rows of one clip as numbers, (length, *row) float32; checked as by `samples_of`."""
        return self.payload.to_float(self.samples_of(i))

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
        written = read_index(self.directory)
        if dict(written["columns"]) != dict(self.index["columns"]):
            raise UserError(f"{self.directory / 'columns.bin'}: it does not say what index.json says: remove it")
        if content_digest(self.index) != self.digest:
            raise UserError(f"{self.directory / 'index.json'}: its digest is of other content; {self._repair()}")

    def _packed(self, i: int) -> NDArray[Any]:
        offset = int(self.offsets[i])
        return self._rows[offset : offset + int(self.lengths[i])]

    def _matches(self, i: int) -> bool:
        return zlib.crc32(self._packed(i).data) == self.crcs[i]

    def _sample(self) -> list[int]:
        """Return clips to look at on opening, spread at random over the file: the same at each opening, some
        megabytes at most.
        """
        order = np.random.default_rng(int(self.digest[:15], 16)).permutation(len(self))
        sizes = self.payload.row_bytes * self.lengths[order]
        return order[np.cumsum(sizes) <= _SAMPLE_BYTES][:_SAMPLE_CLIPS].tolist()

    def _damage(self, wrong: list[int]) -> DamagedCorpus:
        named = ", ".join(self.ids[i] for i in wrong[:_STATED])
        more = f" and {len(wrong) - _STATED} more" if len(wrong) > _STATED else ""
        return DamagedCorpus(
            f"{self.samples_path}: {len(wrong)} of {len(self)} clips are damaged: {named}{more}; {self._repair()}"
        )

    def _repair(self) -> str:
        """Return the command that packs the damaged clips again, from what the index tells of the one that made them."""
        layout, _, rest = self.source.partition(":")
        options = ["--name", self.directory.name]
        if self.payload.is_waveform:
            options += ["--sample-rate", str(self.sample_rate)]
        if self.index.get("max_seconds") is not None:
            options += ["--max-seconds", f"{self.index['max_seconds']:g}"]
        if self.index.get("trim_db") is not None:
            options += ["--trim-db", f"{self.index['trim_db']:g}"]
        told = self.index.get("options")
        told = told if isinstance(told, dict) else {}
        if layout == "esc50" and rest != "all" and "subset" not in told:  # an index of before options were kept
            options += ["--subset", rest]
        for key, value in told.items():
            options += ["--set", f"{key}={value}"]
        if isinstance(self.index.get("group_pattern"), str) and "group_pattern" not in told:
            options += ["--group-pattern", self.index["group_pattern"]]
        source = str(Path(self._root or "SOURCE") / (rest if layout == "csv" else ""))
        return f"repair it with: audio-cls data prepare {shlex.join([source, *options])}"
