"""fit(): what is trained, what is kept, and that a run taken up again is the run that was never interrupted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_cls.core.config import ConfigError
from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.runs.preparation import Prepared, Runtime, prepare_run
from audio_cls.runs.resolve import resolve
from audio_cls.tracking import Tracker
from audio_cls.training.checkpoint import CheckpointStore, read
from audio_cls.training.loop import Diverged, Fit, fit


def experiment(**changes: Any) -> Experiment:
    base = Experiment.parse(
        {
            "data": {"corpus": "tones", "sample_rate": 8000, "clip_seconds": 1.0},
            "features": {"kind": "log_mel", "n_fft": 256, "hop_length": 128, "n_mels": 32},
            "augment": {"mixup": {"alpha": 0.3}, "specaugment": {"time_mask_frames": 6, "freq_mask_bins": 4}},
            "model": {"kind": "small_cnn"},
            "loss": {"kind": "cross_entropy", "label_smoothing": 0.1},
            "training": {"epochs": 5, "batch_size": 8, "metric": "val/macro_f1", "precision": "fp32"},
        }
    )
    return base.override({k.replace("__", "."): v for k, v in changes.items()})


@pytest.fixture
def runtime(tones_corpus: Path) -> Runtime:
    torch.set_num_threads(1)
    return Runtime(Workspace(tones_corpus.parents[1]), tracker=None, device=torch.device("cpu"))  # type: ignore[arg-type]


def curve(result: Fit) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in result.history]


def resolved(e: Experiment, runtime: Runtime) -> Experiment:
    return resolve(e, runtime.corpus(e.data)).experiment


def train(e: Experiment, runtime: Runtime, folder: Path, **kwargs: Any) -> tuple[Fit, Prepared]:
    prepared = prepare_run(resolved(e, runtime), runtime)
    return fit(e, prepared.chain, prepared.batches, CheckpointStore(folder), **kwargs), prepared


class Watcher:
    def __init__(self, folder: Path, stop_after: int) -> None:
        self.folder, self.stop_after, self.seen = folder, stop_after, []

    def epoch(self, epoch: int, row: dict[str, float]) -> None:
        self.seen.append((epoch, read(self.folder / "last.safetensors").state["epoch"], row["val/macro_f1"]))

    def should_stop(self) -> str | None:
        return "pruned: enough" if self.seen[-1][0] == self.stop_after else None


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "schedule": "one_cycle"},
        {"optimizer": "rmsprop", "schedule": "step"},
        {"optimizer": "adagrad", "schedule": "plateau"},
        {"optimizer": "adam", "training__ema_decay": 0.9, "training__clip_norm": 1.0, "schedule__warmup_epochs": 1.0},
        {"augment": {"noise": {}, "gain": {}, "time_shift": {}, "between_class": {}}, "sampling": "balanced"},
        {
            "model": "mlp",
            "features": "mfcc",
            "augment": {},
            "data__evaluation": "windows",
            "data__clip_seconds": 0.5,
            "schedule": {"kind": "cosine_restarts", "cycles": 2},
        },
        {"model": {"kind": "cnn4", "widths": [4, 8, 8, 8], "bands": 2, "hidden": 16}, "training__precision": "bf16"},
    ],
    ids=lambda c: ",".join(f"{k}={v if isinstance(v, str) else '...'}" for k, v in c.items()) or "adamw",
)
def test_resumed_equals_uninterrupted(changes: dict[str, Any], runtime: Runtime, tmp_path: Path) -> None:
    """Killed after each epoch in turn, and in the middle of one: the same weights and curve, bit for bit."""
    e = experiment(**changes)
    whole, _ = train(e, runtime, tmp_path / "whole")
    expected = read(tmp_path / "whole" / "last.safetensors")

    for stop_at in range(e.training.epochs):

        def die_within(step: int, epoch: int, at: int = stop_at) -> None:
            if step == 1 and epoch == at:
                raise Killed

        with pytest.raises(Killed):
            train(e, runtime, tmp_path / "cut", on_step=die_within)
    resumed, _ = train(e, runtime, tmp_path / "cut")
    found = read(tmp_path / "cut" / "last.safetensors")
    assert curve(resumed) == curve(whole)
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert torch.equal(tensor, found.tensors[name]), name
    assert (resumed.best_epoch, resumed.best_value) == (whole.best_epoch, whole.best_value)
    for mine, theirs in (
        (resumed.predictions, whole.predictions),
        (resumed.last_predictions, whole.last_predictions),
    ):
        assert mine is not None
        assert theirs is not None
        assert np.array_equal(mine.scores, theirs.scores)
    assert list(resumed.snapshots) == list(whole.snapshots) == list(e.schedule.snapshot_epochs(e.training.epochs))
    for end, snapshot in whole.snapshots.items():
        assert np.array_equal(resumed.snapshots[end].scores, snapshot.scores)
        assert resumed.snapshots[end].clips == snapshot.clips
        assert snapshot.evaluation.overall["macro_f1"] == whole.history[end - 1]["val/macro_f1"]


def test_it_learns_and_returns_the_best_weights(runtime: Runtime, tmp_path: Path) -> None:
    result, prepared = train(experiment(augment={}, training__epochs=12, optimizer__lr=5e-3), runtime, tmp_path)
    assert result.best_value > 0.9  # three classes: chance is a third
    best = read(tmp_path / f"best-{result.best_epoch:04d}.safetensors")
    for name, value in prepared.chain.classifier.state_dict().items():
        assert torch.equal(value, best.tensors[name])
    assert [p.name for p in sorted(tmp_path.glob("best-*"))] == [f"best-{result.best_epoch:04d}.safetensors"]


def test_seed_and_epoch_alone_decide(runtime: Runtime, tmp_path: Path) -> None:
    torch.manual_seed(1)
    a, _ = train(experiment(training__epochs=2), runtime, tmp_path / "a")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    b, _ = train(experiment(training__epochs=2), runtime, tmp_path / "b")
    c, _ = train(experiment(training__epochs=2, seed=1), runtime, tmp_path / "c")
    assert curve(a) == curve(b)
    assert curve(a) != curve(c)
    assert torch.equal(before, torch.get_rng_state()), "the caller's random state was moved"


def test_observer_stops_and_order_holds(runtime: Runtime, tmp_path: Path) -> None:
    """The checkpoint of an epoch is on disk when the observer hears of it."""
    watcher = Watcher(tmp_path, stop_after=1)
    result, _ = train(experiment(), runtime, tmp_path, observe=watcher)
    assert result.stopped == "pruned: enough"
    assert [(e, s) for e, s, _ in watcher.seen] == [(0, 0), (1, 1)]
    assert [v for _, _, v in watcher.seen] == [row["val/macro_f1"] for row in result.history]


def test_taken_up_it_tells_again_and_asks_before_it_trains(runtime: Runtime, tmp_path: Path) -> None:
    """A predecessor that died between its checkpoint and its report leaves nothing unsaid."""
    train(experiment(), runtime, tmp_path, epochs=3)
    watcher = Watcher(tmp_path, stop_after=2)
    result, _ = train(experiment(), runtime, tmp_path, observe=watcher)
    assert [e for e, _, _ in watcher.seen] == [0, 1, 2]
    assert result.stopped == "pruned: enough"
    assert len(result.history) == 3


def test_early_stopping_counts_epochs_without_a_better_one(runtime: Runtime, tmp_path: Path) -> None:
    result, _ = train(
        experiment(training__epochs=40, training__early_stopping=3, optimizer__lr=1e-6), runtime, tmp_path
    )
    assert len(result.history) == result.best_epoch + 1 + 3 < 40


def test_divergence_is_said_and_not_kept(runtime: Runtime, tmp_path: Path) -> None:
    e = experiment(optimizer={"kind": "sgd", "lr": 1e30}, training__epochs=3)
    with pytest.raises(Diverged, match="epoch"):
        train(e, runtime, tmp_path)
    kept = CheckpointStore(tmp_path).load()
    assert kept is None or all(math.isfinite(r["train/loss"]) for r in kept[0].state["history"])


def test_another_experiments_checkpoint_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    train(experiment(training__epochs=1), runtime, tmp_path)
    with pytest.raises(ConfigError, match="another experiment"):
        train(experiment(training__epochs=1, optimizer__lr=0.5), runtime, tmp_path)


def test_accumulated_parts_give_the_same_gradient(runtime: Runtime, tmp_path: Path) -> None:
    """Without batch statistics a batch in parts is the batch, up to rounding."""
    e = experiment(model={"kind": "mlp", "dropout": 0.0}, features="mfcc", augment={}, training__epochs=2)
    whole, _ = train(e, runtime, tmp_path / "a")
    parts, _ = train(e, runtime, tmp_path / "b", accumulate=4)
    for a, b in zip(whole.history, parts.history, strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-4)


def test_classical_baseline_goes_the_same_way(runtime: Runtime, tmp_path: Path) -> None:
    e = experiment(model="logistic_regression", features="mfcc_statistics", augment={}, loss="cross_entropy")
    result, _ = train(e, runtime, tmp_path)
    assert result.best_value > 0.8
    assert len(result.history) == 1
    assert {"train/loss", "val/loss", "val/macro_f1", "val/lwlrap"} <= result.history[0].keys()


def test_pinned_losses(runtime: Runtime, tmp_path: Path) -> None:
    """The first epochs of a plain run, so that a change of numbers does not pass unseen."""
    result, _ = train(experiment(augment={}, training__epochs=3), runtime, tmp_path)
    assert [row["train/loss"] for row in result.history] == pytest.approx(PINNED, rel=2e-3)


PINNED = [1.11695, 0.95521, 0.86959]


def test_a_users_model_of_raw_waveforms(runtime: Runtime, tmp_path: Path) -> None:
    """A model declared outside the package, on a domain that none of ours takes."""
    from audio_cls.components.models import Model

    class Raw(Model, kind="raw_conv"):
        input_domains = ("waveform",)
        width: int = 8

        def build(self, input_shape: tuple[int, ...], n_classes: int) -> torch.nn.Module:
            return torch.nn.Sequential(
                torch.nn.Unflatten(1, (1, input_shape[0])),
                torch.nn.Conv1d(1, self.width, 64, stride=16),
                torch.nn.ReLU(),
                torch.nn.AdaptiveAvgPool1d(1),
                torch.nn.Flatten(),
                torch.nn.Linear(self.width, n_classes),
            )

    try:
        e = experiment(augment={"gain": {}, "mixup": {}}, features="waveform", model={"kind": "raw_conv", "width": 4})
        result, prepared = train(e, runtime, tmp_path, epochs=2)
        assert len(result.history) == 2
        assert prepared.chain.n_parameters == 4 * 64 + 4 + 4 * 3 + 3
    finally:
        Model._members.pop("raw_conv")


def test_predictions_of_a_run_that_was_taken_up_are_those_of_its_weights(runtime: Runtime, tmp_path: Path) -> None:
    """Taken up when all is trained, from the best and the last checkpoint: the same predictions as where they were made."""
    e = experiment(training__epochs=4, optimizer__lr=1e-6)  # no epoch is better than the first
    first, _ = train(e, runtime, tmp_path)
    again, prepared = train(e, runtime, tmp_path)
    assert first.best_epoch < 3, "the last epoch must not be the best one"
    for mine, theirs in ((again.predictions, first.predictions), (again.last_predictions, first.last_predictions)):
        assert mine is not None
        assert theirs is not None
        assert np.array_equal(mine.scores, theirs.scores)
        assert mine.rows.tolist() == prepared.split.validation.tolist()
    assert first.predictions.evaluation.overall["macro_f1"] == first.history[first.best_epoch]["val/macro_f1"]  # type: ignore[union-attr]


def test_validation_clips_are_predicted_once_an_epoch_and_scored_once(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audio_cls.metrics import classification
    from audio_cls.runs.objective import Record, run_experiment
    from audio_cls.training import predictions

    calls = {"predict": 0, "rank": 0}

    def counting(name: str, function: Any) -> Any:
        def count(*args: Any) -> Any:
            calls[name] += 1
            return function(*args)

        return count

    monkeypatch.setattr(predictions, "predict", counting("predict", predictions.predict))
    monkeypatch.setattr(classification, "rank", counting("rank", classification.rank))
    e = experiment(augment={}, training__epochs=12, optimizer__lr=5e-3)
    runtime.tracker = Tracker(Workspace(tmp_path))
    outcome = run_experiment(e, runtime, Record("once"), CheckpointStore(tmp_path))
    assert outcome.state == "COMPLETE"
    assert not any(line.startswith("At chance") for line in outcome.attrs["findings"])  # else its AUC is asked for
    assert calls["predict"] == 12
    assert calls["rank"] == 12 + 1  # and the baseline's


def test_bf16_is_close_to_fp32(runtime: Runtime, tmp_path: Path) -> None:
    """The same weights give nearly the same logits, and training ends as well: what `precision=auto` relies on."""
    from audio_cls.training.predictions import predict

    plain = experiment(augment={}, training__epochs=10, optimizer__lr=5e-3)
    full, prepared = train(plain, runtime, tmp_path / "fp32")
    logits = predict(prepared.chain, prepared.batches, prepared.split.validation)
    half = prepare_run(resolved(plain.override({"training.precision": "bf16"}), runtime), runtime)
    half.chain.classifier.load_state_dict(prepared.chain.classifier.state_dict())
    lower = predict(half.chain, half.batches, half.split.validation)
    assert not torch.equal(logits, lower), "bf16 was not used"
    assert (logits - lower).norm() / logits.norm() < 0.03
    trained, _ = train(plain.override({"training.precision": "bf16"}), runtime, tmp_path / "bf16")
    assert trained.history[-1]["train/loss"] == pytest.approx(full.history[-1]["train/loss"], abs=0.1)
    assert trained.best_value > 0.9


OTHERS = [
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")),
    pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS")),
]


@pytest.mark.parametrize("device", OTHERS)
def test_what_began_on_the_cpu_goes_on_on_another_device(device: str, runtime: Runtime, tmp_path: Path) -> None:
    """And back. The same randomness, other arithmetic: the curve stays close to the one that never left the CPU."""
    e = experiment(optimizer__lr=0.003, training__epochs=6)
    whole = curve(train(e, runtime, tmp_path / "whole")[0])
    there = Runtime(runtime.workspace, runtime.tracker, torch.device(device))
    for where, epochs in ((runtime, 2), (there, 4), (runtime, 6)):
        moved = curve(train(e, where, tmp_path / "moved", epochs=epochs)[0])
    assert len(moved) == len(whole) == 6
    assert moved[:2] == whole[:2]
    for here, other in zip(whole, moved, strict=True):
        assert other["train/loss"] == pytest.approx(here["train/loss"], rel=0.05)
