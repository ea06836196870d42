"""From a recorded run to labels for audio files: the same decoding, features and window as in its evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from audio_cls.components.features import FeatureExtractor, Normaliser
from audio_cls.core.errors import UserError
from audio_cls.data.audio import AUDIO_SUFFIXES, BadAudio, load, to_float
from audio_cls.data.windows import WindowScores
from audio_cls.experiment import Classifier, Experiment, feature_shape
from audio_cls.training.batches import fit_length
from audio_cls.training.checkpoint import read
from audio_cls.training.predictions import probabilities

__all__ = ["Labelled", "Labeller", "audio_files"]

WEIGHTS = "weights/best.safetensors"
BATCH = 64  # windows that the model takes at a time


@dataclass(frozen=True)
class Labelled:
    """Probabilities of one file, (n_classes,), in the order of the labeller's classes; or why there are none. seconds: its length."""

    path: Path
    scores: np.ndarray | None
    error: str = ""
    seconds: float = 0.0


class _Classes(BaseModel):
    """What `classes.json` holds."""

    model_config = ConfigDict(strict=True, extra="forbid")

    classes: list[str] = Field(min_length=1)
    task: Literal["multiclass", "multilabel"]


class Labeller:
    """A trained classifier with its front end. Needs no corpus: `artifacts` is a run's folder of artifacts.

    `experiment` is what the run was made with (`own_parts.recorded_experiment`).

    Raises:
        UserError: for an artifact that is missing, damaged, or does not fit the others; for weights that are not finite.
    """

    def __init__(self, artifacts: Path, device: torch.device, experiment: Experiment) -> None:
        for name in ("experiment.json", "classes.json", WEIGHTS):
            if not (artifacts / name).exists():
                raise UserError(f"{artifacts}: no {name}: only a COMPLETE run keeps what labelling needs")
        meta = _read_classes(artifacts / "classes.json")
        self.experiment = experiment
        self.classes: list[str] = meta.classes
        self.task: str = meta.task
        self.device = device
        weights = _read_weights(artifacts / WEIGHTS)
        with _as_user_error(artifacts):
            self.features, self.classifier = _build(self.experiment, len(self.classes), weights)
        self.features.to(device)
        self.classifier.to(device).eval()

    @torch.inference_mode()
    def scores(self, waveform: np.ndarray) -> np.ndarray:
        """Return probabilities (n_classes,) of one clip: mono float32 in [-1, 1] at the experiment's sample rate. A longer clip is
        judged by the windows that its evaluation used (`data.evaluation`).
        """
        data, framewise = self.experiment.data, self.experiment.features.framewise
        if framewise:
            waveform = fit_length(waveform, data.clip_samples, data.pad)
        x = self.features(torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))[None].to(self.device))
        if not framewise:
            return probabilities(self.classifier(x).float().cpu(), self.task)[0]
        frames = self.features.frames(data.clip_samples)
        starts = data.evaluation.starts(x.shape[-1], frames, data.rate / self.features.hop_length)
        combined = WindowScores(1, len(self.classes), self.task, data.evaluation.combined_by or "mean")
        for some in np.array_split(starts, -(-len(starts) // BATCH)):
            windows = torch.cat([x[..., start : start + frames] for start in some.tolist()])
            combined.add(np.zeros(len(some), dtype=np.int64), self.classifier(windows).float().cpu().numpy())
        return probabilities(torch.from_numpy(combined.logits()), self.task)[0]

    def label(self, paths: Iterable[Path]) -> Iterator[Labelled]:
        """Label files one by one; a file that is missing or cannot be read yields its reason instead of ending the rest."""
        for path in paths:
            try:
                waveform = to_float(load(path, sample_rate=self.experiment.data.rate).samples)
            except (BadAudio, OSError, ValueError) as error:
                yield Labelled(path, None, _without_path(error, path))
                continue
            scores, seconds = self.scores(waveform), len(waveform) / self.experiment.data.rate
            if np.isfinite(scores).all():
                yield Labelled(path, scores, seconds=seconds)
            else:
                yield Labelled(path, None, "the model gives no finite scores for it", seconds)

    def windows_note(self, seconds: float) -> str:
        """Return which windows a file of so many seconds is judged by; empty where it is no longer than one."""
        data = self.experiment.data
        if not self.experiment.features.framewise or round(seconds * data.rate) <= data.clip_samples:
            return ""
        return data.evaluation.describe(data.clip_samples / data.rate)

    def top(self, scores: np.ndarray, n: int) -> list[tuple[str, float]]:
        """Return the `n` most probable labels."""
        return [(self.classes[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:n]]


def audio_files(paths: Sequence[Path]) -> list[Path]:
    """Return files as they are, whether they are there or not; folders as the audio files below them, in order of
    their names.

    Raises:
        UserError: for a folder without audio files.
    """
    out: list[Path] = []
    for path in paths:
        if not _is_folder(path):
            out.append(path)
            continue
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
        if not found:
            raise UserError(
                f"{path}: no audio file below it ({', '.join(sorted(AUDIO_SUFFIXES))}). TFRecord files, pictures and audio in tables are "
                "read by data prepare only"
            )
        out += found
    return out


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _without_path(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.removeprefix(f"{path}: ")


def _read_classes(path: Path) -> _Classes:
    try:
        meta = _Classes.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise UserError(
            f"{path}: damaged: {key}{': ' if key else ''}{fault['msg']}. Expected "
            '{"classes": ["NAME", ...], "task": "multiclass" or "multilabel"}'
        ) from None
    if len(set(meta.classes)) < len(meta.classes):
        raise UserError(f"{path}: damaged: a class is named twice")
    return meta


def _read_weights(path: Path) -> dict[str, Tensor]:
    tensors = read(path).tensors
    for name, values in tensors.items():
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise UserError(f"{path}: damaged: the weights {name} are not all finite numbers")
    return tensors


def _build(experiment: Experiment, n_classes: int, weights: dict[str, Tensor]) -> tuple[FeatureExtractor, Classifier]:
    """Return the front end and the classifier with its weights."""
    if experiment.features.input_domain != "waveform":
        raise UserError(
            f"this run was trained on {experiment.features.input_domain}s (features.kind={experiment.features.kind}), and only audio files "
            "can be labelled. Figures of other clips: prepare them as a test split of its corpus, then audio-cls evaluate RUN --test"
        )
    features = experiment.features.build(experiment.data.rate)
    model = experiment.model.build(feature_shape(experiment, features), n_classes)
    classifier = Classifier(Normaliser.build(experiment.features, features.n_bins), model)
    classifier.load_state_dict(weights)
    return features, classifier


@contextmanager
def _as_user_error(artifacts: Path) -> Iterator[None]:
    """Whatever goes wrong while a classifier is built from a run's artifacts is reported of them."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise UserError(
            f"{artifacts}: experiment.json, classes.json and {WEIGHTS} do not fit each other: {type(error).__name__}: {text}"
        ) from error
