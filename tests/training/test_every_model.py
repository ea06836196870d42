"""Every registered model in the ordinary loop: trained, stopped after an epoch, continued from its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from audio_cls.components.models import Model
from audio_cls.components.models.real_frames import RealFrames
from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.runs.preparation import Runtime, prepare_run
from audio_cls.runs.resolve import resolve
from audio_cls.training.checkpoint import CheckpointStore, read
from audio_cls.training.loop import fit
from tests.components.test_models import NARROW
from tests.training.test_rows import corpora

__all__ = ["corpora"]  # a fixture

SMALL: dict[str, dict[str, Any]] = {  # to save time: the sizes of all kinds are tested elsewhere
    **NARROW,
    "cnn": {"widths": (4, 4), "pooled": (2, 1), "head": (8,), "dropout": (0.2,)},
    "cnn4": {"widths": (4, 4, 4, 4), "hidden": 8},
    "conv2d": {"hidden": 8},
    "rnn": {"hidden": 8, "head": 8},
}
FEATURES: dict[str, dict[str, Any]] = {
    "spectrogram": {"features": "log_mel", "features.n_mels": 64, "features.hop_length": 200},
    "embedding": {"features": "mfcc_statistics"},
    "waveform": {"features": "waveform"},
    "sequence": {"data.corpus": "emb", "features": "frames", "features.markers": (-1.0, -2.0), "data.pad": "end"},
}
ON_SEQUENCES = {"conv1d", "conv2d", "frame_mlp", "mlp", "rnn", "transformer"}
MANY_WEIGHTS = {"efficientnet_lite0", "mobilenet_v2", "resnet18"}
TONES = {"data.corpus": "tones", "data.clip_seconds": 1.0}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind in MANY_WEIGHTS else [])
        for kind, member in Model.members().items()
        if member.is_built_in()
    ],
)
def test_a_run_that_was_stopped_continues(kind: str, corpora: Path, tones_corpus: Path, tmp_path: Path) -> None:
    takes: tuple[str, ...] = Model.members()[kind].input_domains  # type: ignore[attr-defined]
    domain = "sequence" if kind in ON_SEQUENCES else next(d for d in FEATURES if d in takes)
    root = corpora if domain == "sequence" else tones_corpus.parents[1]
    changes = {"model": {"kind": kind, **SMALL.get(kind, {})}, "training.epochs": 2, "training.batch_size": 16}
    experiment = Experiment().override({**({} if domain == "sequence" else TONES), **FEATURES[domain], **changes})
    runtime = Runtime(Workspace.of(root), None, torch.device("cpu"))  # type: ignore[arg-type]
    experiment = resolve(experiment, runtime.corpus(experiment.data)).experiment
    for folder, epochs in (("whole", 2), ("cut", 1), ("cut", 2)):
        prepared = prepare_run(experiment, runtime)
        fit(experiment, prepared.chain, prepared.batches, CheckpointStore(tmp_path / folder), epochs=epochs)
    whole, cut = (read(tmp_path / folder / "last.safetensors").tensors for folder in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    for part in prepared.chain.classifier.modules():
        assert not isinstance(part, RealFrames) or bool(part.known), "the chain says what padding looks like"
