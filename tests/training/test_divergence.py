"""What is not a number is divergence, in training and in evaluation; a loss that has risen by orders of magnitude is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.runs.preparation import Prepared, Runtime, prepare_run
from audio_cls.runs.resolve import resolve
from audio_cls.training.checkpoint import CheckpointStore
from audio_cls.training.divergence import FIRST_LOSS, MEDIAN_LOSS, risen_loss
from audio_cls.training.loop import Diverged, Fit, fit
from audio_cls.training.predictions import corpus_predictions, predict_clips

BASE = Experiment.parse(
    {
        "data": {"corpus": "tones", "sample_rate": 8000, "clip_seconds": 1.0},
        "features": {"kind": "log_mel", "n_fft": 256, "hop_length": 128, "n_mels": 32},
        "model": {"kind": "small_cnn"},
        "training": {"epochs": 2, "batch_size": 16, "metric": "val/macro_f1", "precision": "fp32"},
    }
)


@pytest.fixture
def runtime(tones_corpus: Path) -> Runtime:
    torch.set_num_threads(1)
    return Runtime(Workspace(tones_corpus.parents[1]), tracker=None, device=torch.device("cpu"))  # type: ignore[arg-type]


def prepared(runtime: Runtime, **changes: Any) -> Prepared:
    experiment = BASE.override({k.replace("__", "."): v for k, v in changes.items()})
    return prepare_run(resolve(experiment, runtime.corpus(experiment.data)).experiment, runtime)


def train(made: Prepared, folder: Path, on_step: Callable[[int, int], None] | None = None) -> Fit:
    return fit(made.experiment, made.chain, made.batches, CheckpointStore(folder), on_step=on_step)


def first_batch_norm(made: Prepared) -> tuple[str, torch.nn.BatchNorm2d]:
    modules = made.chain.classifier.named_modules()
    return next((name, m) for name, m in modules if isinstance(m, torch.nn.BatchNorm2d))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_buffer_that_is_not_finite_is_divergence(value: float, runtime: Runtime, tmp_path: Path) -> None:
    """The loss stays finite: in training, batch normalisation uses the batch's own statistics."""
    made = prepared(runtime)
    name, norm = first_batch_norm(made)
    assert norm.running_var is not None

    def spoil(step: int, epoch: int) -> None:
        if epoch == 1:
            norm.running_var[0] = value  # type: ignore[index]

    with pytest.raises(Diverged) as error:
        train(made, tmp_path, spoil)
    n = norm.running_var.numel()
    assert str(error.value) == (
        f"the buffer {name}.running_var is not finite after epoch 2: 1 of {n} values are NaN or infinite"
    )
    found = CheckpointStore(tmp_path).load()
    assert found is not None
    assert len(found[0].state["history"]) == 1  # what was finite is kept


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("statistic", ["mean", "std"])
def test_a_normaliser_that_is_not_finite_is_divergence(
    statistic: str, value: float, runtime: Runtime, tmp_path: Path
) -> None:
    """Features divided by infinity are zeros: the logits would be finite, and the same for all clips."""
    made = prepared(runtime)
    getattr(made.chain.classifier.normaliser, statistic).fill_(value)
    with pytest.raises(
        Diverged, match=rf"the buffer normaliser.{statistic} is not finite before training: (\d+) of \1"
    ):
        train(made, tmp_path)


def test_the_clip_is_named_whose_features_are_not_finite(runtime: Runtime, tmp_path: Path) -> None:
    made = prepared(runtime)
    corpus, clip = made.corpus, int(made.split.train[3])
    packed = made.batches.packed
    assert packed.offsets is not None
    values = packed.values.clone()
    values[int(packed.offsets[clip])] = torch.inf  # as half precision makes of a value above 65504
    made.batches.packed = type(packed)(values, packed.offsets, packed.lengths)
    made.chain.classifier.normaliser.fit(made.batches.packed.rows(made.split.train))
    with pytest.raises(Diverged, match=rf"normaliser.*; the features of clip '{corpus.ids[clip]}' are not finite"):
        train(made, tmp_path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_divergence(value: float, runtime: Runtime, tmp_path: Path) -> None:
    made = prepared(runtime)
    fitted = made.chain.classifier.model.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        logits = fitted(x)
        if made.chain.classifier.training:
            return logits
        return logits.index_fill(0, torch.tensor([1]), value)

    made.chain.classifier.model.forward = forward  # type: ignore[method-assign]
    n, second = len(made.split.validation), made.corpus.ids[int(made.split.validation[1])]
    said = f"the logits of 1 of {n} clips are NaN or infinite after epoch 1, first those of clip '{second}'"
    with pytest.raises(Diverged) as error:
        train(made, tmp_path)
    assert str(error.value) == said
    with pytest.raises(Diverged, match="in evaluation"):
        predict_clips(made.chain, made.batches, corpus_predictions(made.corpus, made.split.validation))


def test_a_mask_of_infinities_is_no_divergence(runtime: Runtime, tmp_path: Path) -> None:
    made = prepared(runtime, training__epochs=1)
    made.chain.classifier.model.register_buffer("mask", torch.tensor([0.0, -torch.inf]), persistent=False)
    assert train(made, tmp_path / "a").best_epoch == 0
    made = prepared(runtime, training__epochs=1)
    made.chain.classifier.model.register_buffer("mask", torch.tensor([0.0, torch.nan]), persistent=False)
    with pytest.raises(Diverged, match=r"the buffer model.mask is not finite before training"):
        train(made, tmp_path / "b")


def test_a_loss_that_rises_by_orders_of_magnitude_is_told(runtime: Runtime, tmp_path: Path) -> None:
    wild = train(prepared(runtime, optimizer={"kind": "sgd", "lr": 1000.0}), tmp_path / "wild")
    said = risen_loss(wild.history, 1)
    assert said.startswith(f"the training loss rose from {wild.history[0][FIRST_LOSS]:.3g} in the first step to ")
    assert said.endswith("in epoch 2 (median of its steps)")
    tame = train(prepared(runtime), tmp_path / "tame")
    assert risen_loss(tame.history, 1) == ""
    assert wild.history[0][FIRST_LOSS] == tame.history[0][FIRST_LOSS]  # of the same untrained model


@pytest.mark.parametrize(
    ("first", "median", "told"),
    [
        (2.3, 2.2, False),
        (2.3, 200.0, False),  # sure and wrong, but not by orders of magnitude
        (2.3, 231.0, True),
        (1e-6, 1.0, False),  # starts near 0: a hundred times that is nothing yet
        (1e-6, 11.0, True),
        (-3.0, 5.0, False),  # a loss of one's own may be negative
        (None, 1e9, False),  # a run of an earlier version
        (2.3, None, False),
    ],
)
def test_what_counts_as_risen(first: float | None, median: float | None, told: bool) -> None:
    row = {FIRST_LOSS: first, MEDIAN_LOSS: median}
    history = [{k: v for k, v in row.items() if v is not None}]
    assert bool(risen_loss(history, 0)) is told
    assert risen_loss(history, -1) == risen_loss(history, 1) == ""
