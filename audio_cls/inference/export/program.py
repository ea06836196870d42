"""The module that is exported: from waveforms of any length to probabilities, with features, windows and normaliser inside.

Shapes that depend on the length of a clip would keep `torch.export` from proving what it must. Places in a clip are therefore computed
in tensors, and all but the number of windows is of fixed size.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from audio_cls.components.features import FeatureExtractor
from audio_cls.components.segment_features import SegmentFeatures
from audio_cls.core.errors import UserError
from audio_cls.data.settings import Data
from audio_cls.data.windows import Centre, EvaluationWindows, Windows

__all__ = ["ClipCutter", "ClipProgram", "WindowStarts"]


class WindowStarts(nn.Module):
    """First frames of the windows of a clip, as `data.evaluation` says.

    Args:
        evaluation: which windows.
        length: frames of a window.
        frames_per_second: of the features.
    """

    def __init__(self, evaluation: EvaluationWindows, length: int, frames_per_second: float) -> None:
        super().__init__()
        if not isinstance(evaluation, (Centre, Windows)):
            raise UserError(
                f"data.evaluation={evaluation.kind} cannot be exported. What can: centre, windows (for one run: "
                "--set data.evaluation=centre)"
            )
        self.length = length
        self.number: int | None = 1
        self.hop = 1
        if isinstance(evaluation, Windows):
            self.number = evaluation.number
            seconds = evaluation.hop_seconds
            self.hop = max(1, round(length / 2 if seconds is None else seconds * frames_per_second))

    def forward(self, frames: Tensor) -> Tensor:
        """Return the starts (n,) int64, ascending, for a clip of `frames` frames, a number int64."""
        room = (frames - self.length).clamp(min=0)
        if self.number == 1:
            return ((room + 1) // 2)[None]
        if self.number is not None:
            step = room.double() / (self.number - 1)
            starts = (torch.arange(self.number - 1, device=frames.device) * step).round().long()
            return torch.cat([starts, room[None]])
        n = ((room + self.hop - 1) // self.hop + 1).item()
        torch._check(n >= 1)
        return torch.minimum(torch.arange(n, device=frames.device) * self.hop, room)


class ClipCutter(nn.Module):
    """Cut segments out of clips (batch, samples), as if the clip had been padded and reflected as for training.

    Args:
        pad: of a clip that is shorter than a window: "zero" on both sides, "end", or "tile".
        window: samples that a clip is padded to; 0 for none.
        reach: samples before the centre of a frame; a padded clip that is longer is reflected, else there is silence around it.
    """

    def __init__(self, pad: str, window: int, reach: int) -> None:
        super().__init__()
        self.pad, self.window, self.reach = pad, window, reach

    def padded_length(self, waveform: Tensor) -> Tensor:
        """Return the samples of the padded clips, a number int64."""
        length = torch.scalar_tensor(waveform.shape[1], dtype=torch.int64, device=waveform.device)
        return length.clamp(min=self.window)

    def forward(self, waveform: Tensor, at: Tensor) -> Tensor:
        """Return samples (batch, n) of clips (batch, samples).

        Args:
            at: places in the padded clip, (n,) int64; those before 0 and behind its end are reflected.
        """
        length = torch.scalar_tensor(waveform.shape[1], dtype=torch.int64, device=waveform.device)
        padded = length.clamp(min=self.window)
        inside = (at >= 0) & (at < padded)
        if self.reach:
            at = at.abs()
            at = (padded - 1) - (padded - 1 - at).abs()
            at = at.clamp(min=0)
        if self.pad == "tile":
            at = at % length
        elif self.pad == "zero":
            at = at - (padded - length) // 2
        seen = (at >= 0) & (at < length)
        if self.window <= self.reach:
            seen = seen & (inside | (padded > self.reach))
        samples = waveform.index_select(1, at.clamp(min=0).minimum(length - 1))
        return samples * seen


class ClipProgram(nn.Module):
    """Waveforms (batch, samples) float32 in [-1, 1], of any one length, to probabilities.

    Gives the probabilities of the clips, (batch, n_classes) float32.

    Args:
        features: front end in exportable operations (`FeatureExtractor.exportable`), or the extractor itself where it has none.
        classifier: un-normalised features to logits.
        data: of the experiment: window, padding, evaluation.
        framewise: whether windows are cut, or clips judged as a whole.
        halves: features are rounded to half precision, as evaluation stores them.
        task: "multiclass" or "multilabel".
    """

    def __init__(
        self, features: nn.Module, classifier: nn.Module, data: Data, *, framewise: bool, halves: bool, task: str
    ) -> None:
        super().__init__()
        self.features, self.classifier, self.halves = features, classifier, halves
        self.framewise, self.multiclass = framewise, task == "multiclass"
        self.segmented = isinstance(features, SegmentFeatures)
        hop = int(cast(FeatureExtractor, features).hop_length)
        self.hop, self.span, self.reach = hop, 1, 0
        if isinstance(features, SegmentFeatures):
            self.span, self.reach = features.span, features.reach
        self.frames = 0
        if framewise:
            by_segments = data.clip_samples // hop + (1 if self.span > 1 else 0)
            self.frames = by_segments if self.segmented else cast(FeatureExtractor, features).frames(data.clip_samples)
        self.by_window = isinstance(features, SegmentFeatures) and framewise and not features.whole_clip
        self.cutter = ClipCutter(data.pad, data.clip_samples if framewise else 0, self.reach)
        self.starts = WindowStarts(data.evaluation, self.frames, data.rate / hop) if framewise else None
        self.combine = data.evaluation.combined_by or "mean"

    def forward(self, waveform: Tensor) -> Tensor:
        x, starts = self._windows(waveform)
        if self.halves:
            x = x.half().float()
        logits = self.classifier(x).float()
        logits = logits.view(waveform.shape[0], -1, logits.shape[1])
        windows = logits.softmax(2) if self.multiclass else logits.sigmoid()
        return self._combined(windows, starts)

    def _windows(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the features of all windows of all clips, and the first frames of a clip's windows."""
        length = self.cutter.padded_length(waveform)
        if not self.by_window:
            x = self._whole(waveform, length)
            if self.starts is None:
                return x, None
            frames = torch.scalar_tensor(x.shape[-1], dtype=torch.int64, device=x.device)
            starts = self.starts(frames)
            at = starts[:, None] + torch.arange(self.frames, device=x.device)
            x = x.index_select(-1, at.flatten())
            x = x.unflatten(-1, (starts.shape[0], self.frames)).movedim(-2, 1)
            return x.flatten(0, 1), starts
        assert self.starts is not None
        starts = self.starts(length if self.span == 1 else length // self.hop + 1)
        samples = (self.frames - 1) * self.hop + self.span
        at = starts[:, None] * self.hop + torch.arange(samples, device=waveform.device) - self.reach
        segments = self.cutter(waveform, at.flatten()).view(-1, samples)
        return self.features(segments), starts

    def _whole(self, waveform: Tensor, length: Tensor) -> Tensor:
        """Return the features of whole clips."""
        if not self.segmented:
            n = length.item()
            torch._check(n >= max(1, self.cutter.window))
            return self.features(self.cutter(waveform, torch.arange(n, device=waveform.device)))
        frames = (length // self.hop + 1).item()
        torch._check(frames >= max(1, self.frames))
        samples = (frames - 1) * self.hop + self.span
        return self.features(self.cutter(waveform, torch.arange(samples, device=waveform.device) - self.reach))

    def _combined(self, windows: Tensor, starts: Tensor | None) -> Tensor:
        """Return the clips' probabilities (batch, n_classes) of their windows' (batch, windows, n_classes)."""
        if starts is None or (self.starts is not None and self.starts.number == 1):
            return windows[:, 0]
        if self.combine == "max":
            out = windows.amax(1)
        else:
            first = starts >= 0  # a short clip has fewer places than windows: each place counts once
            first = torch.cat([first[:1], starts[1:] != starts[:-1]])[:, None]
            if self.combine == "mean":
                return (windows * first).sum(1) / first.sum()
            out = 1 - torch.where(first, 1 - windows, 1.0).prod(1)
        return out / out.sum(1, keepdim=True) if self.multiclass else out
