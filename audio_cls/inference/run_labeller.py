"""A recorded run as a labeller: its features, normalisation and weights, from the run's artifacts alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from audio_cls.components.features import FeatureExtractor, Normaliser
from audio_cls.core.errors import UserError, first_fault
from audio_cls.experiment import Classifier, Experiment, evaluation_views, feature_shape
from audio_cls.inference.labeller import Labeller
from audio_cls.inference.row_stream import RowStream
from audio_cls.training.batches import fit_length
from audio_cls.training.checkpoint import read
from audio_cls.training.predictions import autocast, probabilities

__all__ = ["THRESHOLDS", "WEIGHTS", "RunLabeller"]

WEIGHTS = "weights/best.safetensors"
THRESHOLDS = "thresholds.json"


class _Classes(BaseModel):
    """What `classes.json` holds."""

    model_config = ConfigDict(strict=True, extra="forbid")

    classes: list[str] = Field(min_length=1)
    task: Literal["multiclass", "multilabel"]


class RunLabeller(Labeller):
    """A trained classifier with its front end. Needs no corpus: `artifacts` is a run's folder of artifacts.

    Scores are those of the run's evaluation: features are held in half precision there, and the model computes in
    `training.precision`.

    Args:
        experiment: what the run was made with (`own_parts.recorded_experiment`).
        name: of the run; that of the folder unless given.
        precision: instead of `training.precision`.

    Raises:
        UserError: for an artifact that is missing, damaged, or does not fit the others; for weights that are not finite.
    """

    def __init__(
        self,
        artifacts: Path,
        device: torch.device,
        experiment: Experiment,
        name: str = "",
        precision: Literal["auto", "fp32", "bf16"] | None = None,
    ) -> None:
        for file in ("experiment.json", "classes.json", WEIGHTS):
            if not (artifacts / file).exists():
                raise UserError(f"{artifacts}: no {file}: only a COMPLETE run keeps what labelling needs")
        meta = _read_classes(artifacts / "classes.json")
        self.experiment, self.device = experiment, device
        self.name = name or artifacts.name
        self.classes, self.task = meta.classes, meta.task
        self.thresholds = _read_thresholds(artifacts / THRESHOLDS, meta.classes)
        self.precision = experiment.training.precision if precision is None else precision
        weights = _read_weights(artifacts / WEIGHTS)
        with _as_user_error(artifacts):
            self.features, self.classifier = _build(experiment, len(self.classes), self.task, weights)
        self.features.to(device)
        self.classifier.to(device).eval()
        data = experiment.data
        self.sample_rate, self.evaluation, self.pad = data.rate, data.evaluation, data.pad
        self.window_seconds = None
        if experiment.features.framewise:
            self.window_seconds = data.clip_samples / data.rate
            self.hop_length = self.features.hop_length
            self.window_rows = self.features.frames(data.clip_samples)

    @torch.inference_mode()
    def window_scores(self, waveforms: NDArray[np.float32]) -> NDArray[np.float64]:
        x = np.asarray(waveforms, dtype=np.float32)
        if self.window_seconds is not None:
            if x.shape[1] > self.window_samples:
                raise ValueError(f"windows of {x.shape[1]} samples, at most {self.window_samples} are judged at once")
            x = np.stack([fit_length(row, self.window_samples, self.pad) for row in x])
        logits = self._judge(self._extract(torch.from_numpy(np.ascontiguousarray(x))))
        return probabilities(torch.from_numpy(logits), self.task)

    def _rows(self, blocks: Iterable[NDArray[np.float32]]) -> RowStream:
        features = self.features
        return RowStream(
            blocks, self._extract, features.frames, features.hop_length, features.reach, self.window_samples, self.pad, self.sample_rate
        )  # fmt: skip

    def _whole(self, waveform: NDArray[np.float32]) -> Tensor:
        return self._extract(torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))[None])

    @torch.inference_mode()
    def _extract(self, waveforms: Tensor) -> Tensor:
        """Return features of waveforms (n, samples), as precise as the packed features that evaluation reads."""
        features = self.features(waveforms.to(self.device))
        stored_in_half = self.window_seconds is not None and self.experiment.features.output_domain != "waveform"
        return features.half().float() if stored_in_half else features

    @torch.inference_mode()
    def _judge(self, windows: Tensor) -> NDArray[np.float32]:
        with autocast(self.precision, self.device):
            return self.classifier(windows).float().cpu().numpy()


def _read_classes(path: Path) -> _Classes:
    try:
        meta = _Classes.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except ValidationError as error:
        raise UserError(
            f"{path}: damaged: {first_fault(error)}. Expected "
            '{"classes": ["NAME", ...], "task": "multiclass" or "multilabel"}'
        ) from None
    if len(set(meta.classes)) < len(meta.classes):
        raise UserError(f"{path}: damaged: a class is named twice")
    return meta


def _read_thresholds(path: Path, classes: list[str]) -> NDArray[np.float64] | None:
    """Return the thresholds (n_classes,) that were tuned on the validation clips, or None where none were."""
    if not path.exists():
        return None
    try:
        by_class = json.loads(path.read_bytes())
        found = np.array([float(by_class[name]) for name in classes])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: damaged: expected a threshold for each class: {type(error).__name__}: {error}"
        ) from None
    if not np.isfinite(found).all():
        raise UserError(f"{path}: damaged: not all thresholds are finite numbers")
    return found


def _read_weights(path: Path) -> dict[str, Tensor]:
    tensors = read(path).tensors
    for name, values in tensors.items():
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise UserError(f"{path}: damaged: the weights {name} are not all finite numbers")
    return tensors


def _build(
    experiment: Experiment, n_classes: int, task: str, weights: dict[str, Tensor]
) -> tuple[FeatureExtractor, Classifier]:
    """Return the front end and the classifier with its weights."""
    if experiment.features.input_domain != "waveform":
        raise UserError(
            f"this run was trained on {experiment.features.input_domain}s (features.kind={experiment.features.kind}), and only audio files "
            "can be labelled. Figures of other clips: prepare them as a test split of its corpus, then audio-cls evaluate RUN --test"
        )
    features = experiment.features.build(experiment.data.rate)
    model = experiment.model.build(feature_shape(experiment, features), n_classes)
    normaliser = Normaliser.build(experiment.features, features.n_bins)
    classifier = Classifier(normaliser, model, views=evaluation_views(experiment, task))
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
