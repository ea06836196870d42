"""From a packed corpus to batches: gathered by index on the device, no loader, deterministic by (seed, epoch).

Features of whole clips are computed once per process and held packed, frame after frame, in half precision; a batch is a
gather of windows. Only when an experiment augments waveforms are features computed batch by batch, from windows of samples at
the same places, and only of the clips that an augmentation changed: the others keep their packed features, so that a run whose
augmentations change nothing is the run without them. Evaluation always reads the packed features, never augmented, of the windows that
`data.evaluation` asks for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from audio_cls.components.features import FeatureExtractor, Normaliser
from audio_cls.components.row_features import RowExtractor
from audio_cls.components.shapes import check_sampling
from audio_cls.core.rng import numpy_rng
from audio_cls.core.stopping import QUIET, Watch
from audio_cls.data.corpus import Corpus
from audio_cls.data.splits import Split
from audio_cls.data.windows import Centre, EvaluationWindows, place_of, position
from audio_cls.experiment import Data, Experiment, check_corpus
from audio_cls.training.row_windows import PackedRows
from audio_cls.training.rules import FORMER, RULES, uses_waveforms

__all__ = ["Batch", "Batches", "FeatureCache", "PackedFeatures", "count_batches", "pack_features"]

PHASE = "computing features"
_CENTRE = Centre()


@dataclass(frozen=True)
class Batch:
    """`clips` are corpus rows; `x` is what the chain takes next (waveforms or features); `y` soft targets (batch, n_classes).

    asked: of windows in evaluation, which of the clips asked for each one is of, counted from 0.
    packed: features of the same windows, where `x` are waveforms that are augmented before features are taken from them; None
        otherwise, and by the former rules. n_steps: batches of the epoch, this one included.
    """

    clips: np.ndarray
    x: torch.Tensor
    y: torch.Tensor
    packed: torch.Tensor | None = None
    n_steps: int = 1
    asked: np.ndarray | None = None


@dataclass
class PackedFeatures:
    """Features of all clips in one tensor: framewise `(total_frames, n_bins)` with one slice a clip, else `(n_clips, n_features)`."""

    values: torch.Tensor
    offsets: torch.Tensor | None  # (n_clips,) first row of each clip
    lengths: torch.Tensor | None  # (n_clips,) rows of each clip

    def rows(self, clips: np.ndarray) -> torch.Tensor:
        """Return all rows of some clips, as float32 `(rows, n)`: what a normaliser is fitted on."""
        if self.offsets is None or self.lengths is None:
            return self.values[torch.as_tensor(clips, device=self.values.device)].float()
        parts = [self.values[int(self.offsets[i]) : int(self.offsets[i] + self.lengths[i])] for i in clips.tolist()]
        return torch.cat(parts).float()


def fit_length(waveform: np.ndarray, samples: int, pad: str) -> np.ndarray:
    """Return a clip at least `samples` long: as it is, tiled, or with silence on both sides or at its end."""
    missing = samples - len(waveform)
    if missing <= 0:
        return waveform
    if pad == "tile":
        return np.resize(waveform, samples)
    if pad == "end":
        return np.pad(waveform, (0, missing))
    return np.pad(waveform, (missing // 2, missing - missing // 2))


@torch.inference_mode()
def pack_features(
    corpus: Corpus,
    data: Data,
    features: FeatureExtractor,
    framewise: bool,
    device: torch.device,
    watch: Watch = QUIET,
) -> PackedFeatures:
    """Compute every clip's features once. Clips of equal length go through together, in small chunks.

    Raises:
        Abandoned: when `watch` was asked to leave.
    """
    n = len(corpus)
    length = np.maximum(corpus.lengths, data.clip_samples) if framewise else np.asarray(corpus.lengths)
    order = np.lexsort((np.arange(n), length))
    if not framewise:
        matrix = torch.empty(n, features.n_bins, dtype=torch.float32)
        for i in range(n):
            watch.step(PHASE, i, n)
            matrix[i] = features(torch.from_numpy(corpus.waveform(i))[None].to(device))[0].cpu()
        watch.step(PHASE, n, n)
        return PackedFeatures(matrix.to(device), None, None)
    frames = np.array([features.frames(int(m)) for m in length], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(frames)[:-1]]).astype(np.int64)
    packed = torch.empty(int(frames.sum()), features.n_bins, dtype=torch.float16)
    chunk = 8 if device.type == "cpu" else 256
    for start in range(0, n, chunk):
        watch.step(PHASE, start, n)
        for part in _runs_of_equal(order[start : start + chunk], length):
            waves = np.stack([fit_length(corpus.waveform(int(i)), int(length[i]), data.pad) for i in part])
            values = features(torch.from_numpy(waves).to(device))[:, 0].transpose(1, 2).to("cpu", torch.float16)
            for i, value in zip(part, values, strict=True):
                packed[offsets[i] : offsets[i] + frames[i]] = value
    watch.step(PHASE, n, n)
    return PackedFeatures(packed.to(device), torch.from_numpy(offsets), torch.from_numpy(frames))


def _runs_of_equal(order: np.ndarray, length: np.ndarray) -> Iterator[np.ndarray]:
    edges = np.flatnonzero(np.diff(length[order])) + 1
    yield from np.split(order, edges)


class FeatureCache:
    """Packed features and normalisers of one process, by what they depend on; a warm worker pays for them once."""

    def __init__(self, keep: int = 4) -> None:
        self._keep = keep
        self._packed: OrderedDict[tuple[str, ...], PackedFeatures | PackedRows] = OrderedDict()
        self._statistics: dict[tuple[str, ...], dict[str, torch.Tensor]] = {}

    def shrink(self) -> None:
        """Let go of all packed features but those used last."""
        while len(self._packed) > 1:
            self._packed.popitem(last=False)

    def packed(
        self,
        experiment: Experiment,
        corpus: Corpus,
        features: FeatureExtractor,
        device: torch.device,
        watch: Watch = QUIET,
    ) -> PackedFeatures | PackedRows:
        data, framewise = experiment.data, experiment.features.framewise
        if isinstance(features, RowExtractor):  # computed as they are gathered; what is damaged is found before
            corpus.check(range(len(corpus)))
            stored = (corpus.digest, "rows", str(device))
            if stored not in self._packed:
                self._packed[stored] = PackedRows.of(corpus, device)
            return self._packed[stored]
        if (
            experiment.features.output_domain == "waveform"
        ):  # nothing to compute: batches are cut from the corpus itself
            corpus.check(range(len(corpus)))  # damage is found before the training, as where features are computed
            return PackedFeatures(torch.empty(0), None, None)
        window = f"{data.clip_samples}/{data.pad}" if framewise else "whole"
        key = (corpus.digest, experiment.features.digest(), window, str(device))
        if key not in self._packed:
            while len(self._packed) >= self._keep:
                self._packed.popitem(last=False)
            self._packed[key] = pack_features(corpus, data, features.to(device), framewise, device, watch)
        self._packed.move_to_end(key)
        return self._packed[key]

    def normaliser(
        self,
        experiment: Experiment,
        corpus: Corpus,
        split: Split,
        features: FeatureExtractor,
        device: torch.device,
        watch: Watch = QUIET,
    ) -> Normaliser:
        """Return statistics of the training clips' features, fitted once for each (features, split)."""
        packed = self.packed(experiment, corpus, features, device, watch)
        key = (
            corpus.digest,
            experiment.features.digest(),
            str(experiment.data.clip_samples),
            experiment.data.pad,
            split.digest,
            str(device),
        )
        normaliser = Normaliser.build(experiment.features, features.n_bins)
        if key not in self._statistics:
            if isinstance(packed, PackedRows):
                assert isinstance(features, RowExtractor)
                blocks = packed.count_blocks(split.train)
                rows = packed.blocks(split.train, features)
                normaliser.fit(rows, lambda done: watch.step("normalisation", min(done, blocks), blocks))
            elif experiment.features.output_domain == "waveform":
                clips = len(split.train)
                waveforms = (torch.from_numpy(corpus.waveform(int(i)))[None] for i in split.train)
                normaliser.fit(waveforms, lambda done: watch.step("normalisation", min(done, clips), clips))
            else:
                values = packed.rows(split.train).cpu()
                blocks = normaliser.count_blocks(values)
                normaliser.fit(values, lambda done: watch.step("normalisation", done, blocks))
            self._statistics[key] = {k: v.clone() for k, v in normaliser.state_dict().items()}
        normaliser.load_state_dict(self._statistics[key])
        return normaliser

    def band_means(self, experiment: Experiment, corpus: Corpus, split: Split, packed: PackedFeatures) -> torch.Tensor:
        """Return the mean of each band over the training clips, (1, 1, n_bins, 1), before any normalisation."""
        device = packed.values.device
        key = (corpus.digest, experiment.features.digest(), str(experiment.data.clip_samples), experiment.data.pad,
               split.digest, str(device), "means")  # fmt: skip
        if key not in self._statistics:
            fitted = Normaliser("band", packed.values.shape[1]).fit(packed.rows(split.train).cpu())
            self._statistics[key] = {"mean": fitted.mean.to(device)}
        return self._statistics[key]["mean"]


class Batches:
    """The training and evaluation batches of one experiment on one corpus."""

    watch: Watch = QUIET

    def __init__(
        self,
        experiment: Experiment,
        corpus: Corpus,
        split: Split,
        features: FeatureExtractor,
        packed: PackedFeatures | PackedRows,
        device: torch.device,
        watch: Watch = QUIET,
        rules: int = RULES,
    ) -> None:
        data = experiment.data
        self.watch, self.rules = watch, rules
        check_corpus(experiment, corpus)
        self.extractor = features
        self.experiment, self.corpus, self.split, self.device = experiment, corpus, split, device
        self.packed = packed
        self.parts = 1  # in how many parts batches are worked on, for want of memory
        self.framewise = experiment.features.framewise
        self.is_waveform = experiment.features.output_domain == "waveform"
        self.from_waveforms = self.is_waveform or uses_waveforms(experiment)
        self.hop_length = features.hop_length
        self.frames = features.frames(data.clip_samples) if self.framewise else 0
        self.targets = torch.from_numpy(np.asarray(corpus.targets, dtype=np.float32)).to(device)
        self._order = experiment.sampling.build(np.asarray(corpus.targets[split.train]))
        check_sampling(experiment.sampling, self._order, len(split.train), experiment.seed)

    def train(self, epoch: int) -> Iterator[Batch]:
        """Return one epoch's batches; the order and the crops depend on (seed, epoch) only."""
        seed, size = self.experiment.seed, self.experiment.training.batch_size
        order = self.split.train[self._order(seed, epoch)]
        crops = numpy_rng(seed, "crop", epoch).random(len(order))
        if self.experiment.data.crop == "centre":
            crops[:] = 0.5
        n_steps = count_batches(len(order), size)
        starts = [step * size for step in range(n_steps)]
        ends = [*starts[1:], len(order)]
        whole = self.from_waveforms and not self.is_waveform and self.rules != FORMER
        for start, end in zip(starts, ends, strict=True):
            if self.watch.tell:
                self.watch.tell(f"epoch {epoch + 1}", start, len(order))
            clips, where = order[start:end], crops[start:end]
            x = self.waveforms(clips, where) if self.from_waveforms else self.features(clips, where)
            y = self.targets[torch.as_tensor(clips, device=self.device)]
            yield Batch(clips, x, y, self.features(clips, where) if whole else None, n_steps)

    def evaluate(
        self, clips: np.ndarray, size: int | None = None, windows: EvaluationWindows = _CENTRE
    ) -> Iterator[Batch]:
        """Return the windows of each clip (by default its middle one), in the order given, never augmented.

        A batch's `clips` repeat a clip for each of its windows. Features that are no frames have one window.

        Raises:
            Abandoned: when the grace of whoever was asked to leave is over.
        """
        size = size or max(1, max(64, self.experiment.training.batch_size) // self.parts)
        asked, where = self._windows(clips, windows)
        for start in range(0, len(asked), size):
            rows = asked[start : start + size]
            self.watch.step("evaluation", int(rows[0]), len(clips), finish=True)
            part, at = clips[rows], where[start : start + size]
            x = self.waveforms(part, at) if self.is_waveform else self.features(part, at)
            yield Batch(part, x, self.targets[torch.as_tensor(part, device=self.device)], asked=rows)

    def _windows(self, clips: np.ndarray, windows: EvaluationWindows) -> tuple[np.ndarray, np.ndarray]:
        """Return the windows of some clips in order: which of `clips` (counted from 0), and where in it (0 first, 1 last place)."""
        if windows.kind == Centre.kind or not self.framewise:
            return np.arange(len(clips)), np.full(len(clips), 0.5)
        packed, length = self.packed, self.experiment.data.clip_samples if self.is_waveform else self.frames
        if isinstance(packed, PackedRows):
            lengths = packed.lengths[clips] + self.frames - self.experiment.data.clip_samples  # with their markers
        else:
            lengths = self.corpus.lengths[clips] if packed.lengths is None else packed.lengths.numpy()[clips]
        unique, index = np.unique(np.maximum(lengths, length), return_inverse=True)
        per_second = self.experiment.data.rate / self.hop_length
        places = [place_of(windows.starts(int(n), length, per_second), int(n) - length) for n in unique]
        numbers = np.array([len(p) for p in places], dtype=np.int64)[index]
        return np.repeat(np.arange(len(clips)), numbers), np.concatenate([places[k] for k in index] or [np.empty(0)])

    def features(self, clips: np.ndarray, where: np.ndarray) -> torch.Tensor:
        """Return windows of features at `where` (0 the first, 1 the last): (batch, 1, n_bins, frames), (batch, n_features), or as
        an extractor of rows gives them.
        """
        packed = self.packed
        if isinstance(packed, PackedRows):
            assert isinstance(self.extractor, RowExtractor)
            rows, place = packed.windows(clips, where, self.frames, self.extractor.margin, self.experiment.data.pad)
            return self.extractor(rows.to(self.device), place.to(self.device))
        if packed.offsets is None or packed.lengths is None:
            return packed.values[torch.as_tensor(clips, device=self.device)]
        index = torch.from_numpy(clips)
        room = (packed.lengths[index] - self.frames).numpy()
        first = packed.offsets[index] + torch.from_numpy(position(where, room))
        rows = (first[:, None] + torch.arange(self.frames)[None]).reshape(-1).to(self.device)
        window = packed.values.index_select(0, rows).view(len(clips), self.frames, -1)
        return window.transpose(1, 2).unsqueeze(1).float()

    def waveforms(self, clips: np.ndarray, where: np.ndarray) -> torch.Tensor:
        """Return windows of samples at `where`, (batch, clip_samples) float32 in [-1, 1]: those of the packed features."""
        data = self.experiment.data
        rows = self.packed.lengths
        grid = 1 if rows is None or self.rules == FORMER else self.hop_length
        out = np.empty((len(clips), data.clip_samples), dtype=np.float32)
        for row, (clip, part) in enumerate(zip(clips.tolist(), where.tolist(), strict=True)):
            samples = self.corpus.samples_of(clip)
            room = len(samples) - data.clip_samples
            if room >= 0:
                places = room if rows is None or grid == 1 else int(rows[clip]) - self.frames
                start = min(grid * int(position(np.array([part]), np.array([places]))[0]), room)
                out[row] = samples[start : start + data.clip_samples]
            else:
                out[row] = fit_length(samples, data.clip_samples, data.pad)
        return torch.from_numpy(out).mul_(1 / 32768).to(self.device, non_blocking=True)


def count_batches(n_clips: int, size: int) -> int:
    """Return the steps of an epoch of so many clips. A last batch of one clip, which has no batch statistics, joins the one before."""
    n = -(-n_clips // size)
    return n - (n > 1 and n_clips - (n - 1) * size == 1)
