"""From a recorded run to labels for audio files: the same decoding, features and window as in its evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from audio_cls.batches import fit_length
from audio_cls.checkpoint import read
from audio_cls.data.audio import AUDIO_SUFFIXES, BadAudio, load, to_float
from audio_cls.errors import UserError
from audio_cls.experiment import Classifier, Experiment, feature_shape
from audio_cls.features import Normaliser

__all__ = ["Labeller", "audio_files"]


@dataclass(frozen=True)
class Labelled:
    """Probabilities of one file, (n_classes,), in the order of the labeller's classes; or why there are none."""

    path: Path
    scores: np.ndarray | None
    error: str = ""


class Labeller:
    """A trained classifier with its front end. Needs no corpus: `artifacts` is a run's folder of artifacts."""

    def __init__(self, artifacts: Path, device: torch.device) -> None:
        for name in ("experiment.json", "classes.json", "weights/best.safetensors"):
            if not (artifacts / name).exists():
                raise UserError(f"{artifacts}: no {name}: only a COMPLETE run keeps what labelling needs")
        meta = json.loads((artifacts / "classes.json").read_text(encoding="utf-8"))
        self.experiment = Experiment.from_json((artifacts / "experiment.json").read_text(encoding="utf-8"))
        self.classes: list[str] = meta["classes"]
        self.task: str = meta["task"]
        self.device = device
        data = self.experiment.data
        self.features = self.experiment.features.build(data.sample_rate).to(device)
        model = self.experiment.model.build(feature_shape(self.experiment, self.features), len(self.classes))
        self.classifier = Classifier(Normaliser.build(self.experiment.features, self.features.n_bins), model)
        self.classifier.load_state_dict(read(artifacts / "weights" / "best.safetensors").tensors)
        self.classifier.to(device).eval()

    @torch.inference_mode()
    def scores(self, waveform: np.ndarray) -> np.ndarray:
        """Probabilities (n_classes,) of one clip: mono float32 in [-1, 1] at the experiment's sample rate."""
        data = self.experiment.data
        if self.experiment.features.framewise:
            waveform = fit_length(waveform, data.clip_samples, data.pad)
        x = self.features(torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))[None].to(self.device))
        if self.experiment.features.framewise:
            frames = self.features.frames(data.clip_samples)
            start = int(0.5 * (x.shape[-1] - frames + 1))
            x = x[..., start : start + frames]
        logits = self.classifier(x).double()[0]
        out = torch.softmax(logits, 0) if self.task == "multiclass" else torch.sigmoid(logits)
        return out.cpu().numpy()

    def label(self, paths: Iterable[Path]) -> Iterator[Labelled]:
        """Label files one by one; a file that cannot be read yields its reason instead of ending the rest."""
        for path in paths:
            try:
                waveform = to_float(load(path, sample_rate=self.experiment.data.sample_rate).samples)
            except BadAudio as error:
                yield Labelled(path, None, str(error))
                continue
            yield Labelled(path, self.scores(waveform))

    def top(self, scores: np.ndarray, n: int) -> list[tuple[str, float]]:
        """The `n` most probable labels."""
        return [(self.classes[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:n]]


def audio_files(paths: Sequence[Path]) -> list[Path]:
    """Files as they are; folders as the audio files below them, in order of their names."""
    out: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
            if not found:
                raise UserError(f"{path}: no audio file below it ({', '.join(sorted(AUDIO_SUFFIXES))})")
            out += found
        elif path.exists():
            out.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return out
