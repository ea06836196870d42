"""The training rules: each correction of version 1, and that what began by version 0 goes on by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_cls.components.augment import Masks
from audio_cls.components.augment.base import Augmentation
from audio_cls.components.losses import Loss, part_shares, splits_into_parts
from audio_cls.core.config import ConfigError
from audio_cls.core.rng import generator
from audio_cls.runs.preparation import Prepared, Runtime, prepare_run
from audio_cls.training.average import WeightAverage
from audio_cls.training.checkpoint import CheckpointStore, read
from audio_cls.training.loop import Fit, augment, fit
from audio_cls.training.rules import FORMER, RULES, corrections
from tests.training.test_training import curve, experiment, resolved, runtime

__all__ = ["runtime"]  # the fixture


def train(changes: dict[str, Any], runtime: Runtime, folder: Path, rules: int = RULES, **kwargs: Any) -> Fit:
    e = experiment(**changes)
    prepared = prepare_run(resolved(e, runtime), runtime, rules)
    return fit(e, prepared.chain, prepared.batches, CheckpointStore(folder), **kwargs)


def prepare(runtime: Runtime, rules: int = RULES, **changes: Any) -> Prepared:
    return prepare_run(resolved(experiment(**changes), runtime), runtime, rules)


# -- the moving average of the weights ------------------------------------------------------------------------------


def test_the_average_warms_up() -> None:
    """The decay of step n is min(decay, (1 + n) / (10 + n)); by the former rules it is the same from the first step on."""
    module = torch.nn.Linear(1, 1, bias=False)
    values = iter([1.0, 3.0, -2.0, 0.5])
    with torch.no_grad():
        module.weight.fill_(next(values))
        average, former = WeightAverage(module, 0.15), WeightAverage(module, 0.15, warm_up=False)
        expected, expected_former = 1.0, 1.0
        for n, value in enumerate(values):
            module.weight.fill_(value)
            average.update(module)
            former.update(module)
            decay = min(0.15, (1 + n) / (10 + n))
            expected = decay * expected + (1 - decay) * value
            expected_former = 0.15 * expected_former + 0.85 * value
    assert average.values["weight"].item() == pytest.approx(expected)
    assert former.values["weight"].item() == pytest.approx(expected_former)
    assert expected != pytest.approx(expected_former)


def test_a_short_run_with_averaged_weights_learns(runtime: Runtime, tmp_path: Path) -> None:
    """With a decay of 0.99 the initial weights made up nearly all of the average after some tens of steps."""
    changes = {"augment": {}, "training__epochs": 12, "optimizer__lr": 5e-3, "training__ema_decay": 0.99}
    assert train(changes, runtime, tmp_path / "now").history[-1]["val/accuracy"] > 0.9
    assert train(changes, runtime, tmp_path / "former", FORMER).history[-1]["val/loss"] > 0.8  # chance is 1.1


# -- steps of the schedule ------------------------------------------------------------------------------------------


def _positions(runtime: Runtime, tmp_path: Path, rules: int, **changes: Any) -> list[list[tuple[float, float]]]:
    """Return, by epoch, the positions at which the schedule was asked, and the length of a step."""
    from audio_cls.components.optim import Cosine

    asked: list[list[tuple[float, float]]] = []

    class Watched(Cosine, kind="watched_cosine"):
        def factor(self, epoch: float, epochs: int, history: Any = (), step: float = 0.0) -> float:
            if len(history) == len(asked):
                asked.append([])
            asked[-1].append((epoch, step))
            return super().factor(epoch, epochs, history, step)

    try:
        train({"augment": {}, "schedule": "watched_cosine", "training__epochs": 2, **changes}, runtime, tmp_path, rules)
    finally:
        from audio_cls.components.optim import Schedule

        Schedule._members.pop("watched_cosine")
    return asked


REPEATED = {"sampling": {"kind": "repeat_factor", "threshold": 1.0}, "training__batch_size": 4}


def test_the_schedule_counts_the_steps_of_longer_epochs(runtime: Runtime, tmp_path: Path) -> None:
    """Repeated clips make an epoch longer: its steps lie between its beginning and the next one's."""
    for epoch, asked in enumerate(_positions(runtime, tmp_path / "now", RULES, **REPEATED)):
        n = len(asked)
        assert n > 5  # 18 clips in batches of 4
        assert [position for position, _ in asked] == pytest.approx([epoch + i / n for i in range(n)])
        assert {width for _, width in asked} == {1 / n}
    former = _positions(runtime, tmp_path / "former", FORMER, **REPEATED)
    assert former[0][-1][0] > 1, "by the former rules the schedule of an epoch reached into the next one"


def test_a_last_batch_that_joins_the_one_before_is_no_step(runtime: Runtime, tmp_path: Path) -> None:
    n_train = len(prepare(runtime).split.train)
    asked = _positions(runtime, tmp_path, RULES, training__batch_size=n_train - 1)
    assert asked[0] == [(0.0, 1.0)]


# -- a batch in parts -----------------------------------------------------------------------------------------------

LOSSES: list[dict[str, Any]] = [
    {"kind": kind, "class_weights": weights, "label_smoothing": smoothing}
    for kind in ("cross_entropy", "focal", "bce")
    for weights in ("none", "inverse", "effective")
    for smoothing in (0.0, 0.2)
]


def _gradient(loss: torch.nn.Module, targets: torch.Tensor, parts: int) -> torch.Tensor:
    torch.manual_seed(0)
    model, x = torch.nn.Linear(6, targets.shape[1]), torch.randn(len(targets), 6)
    split = targets.tensor_split(parts)
    for part_x, part_y, share in zip(x.tensor_split(parts), split, part_shares(loss, split), strict=True):
        (loss(model(part_x), part_y) * share).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    ("settings", "task"),
    [
        (s, task)
        for s in LOSSES
        for task in ("multiclass", "multilabel")
        if (s["kind"], task) != ("cross_entropy", "multilabel")
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_a_batch_in_parts_has_the_gradient_of_the_whole(settings: dict[str, Any], task: str) -> None:
    """17 clips of very unequal classes, some of them mixed: the parts differ in size and in the weight of their classes."""
    config = Loss.parse(settings)
    random = torch.Generator().manual_seed(1)
    counts = torch.tensor([200.0, 20.0, 2.0])
    targets = torch.nn.functional.one_hot(torch.tensor([0] * 12 + [1] * 3 + [2] * 2), 3).float()
    share = torch.rand(17, 1, generator=random)
    targets = torch.lerp(targets, targets.flip(0), share)  # as mixup makes them
    loss = config.build(counts, 222, task)
    whole = _gradient(loss, targets, 1)
    for parts in (2, 4, 5):
        torch.testing.assert_close(_gradient(loss, targets, parts), whole, rtol=1e-4, atol=1e-6)
    assert splits_into_parts(loss, 3, torch.device("cpu"))


def test_a_loss_that_cannot_be_split_is_noticed() -> None:
    class Norm(torch.nn.Module):
        def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return (logits - targets).norm()

    assert splits_into_parts(torch.nn.MSELoss(), 3, torch.device("cpu"))  # a mean over clips
    assert not splits_into_parts(Norm(), 3, torch.device("cpu"))


WEIGHTED = {
    "model": {"kind": "mlp", "dropout": 0.0}, "features": "mfcc", "augment": {"mixup": {}}, "training__epochs": 2,
    "loss": {"kind": "cross_entropy", "class_weights": "inverse"}, "optimizer": {"kind": "sgd", "lr": 0.1},
}  # fmt: skip


def test_a_run_in_parts_with_weighted_classes_is_the_run(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audio_cls.components import losses

    monkeypatch.setattr(losses, "class_weights", lambda *args: torch.tensor([10.0, 1.0, 0.1]))
    whole = train(WEIGHTED, runtime, tmp_path / "whole")
    parts = train(WEIGHTED, runtime, tmp_path / "parts", accumulate=3)
    former = train(WEIGHTED, runtime, tmp_path / "former", FORMER, accumulate=3)
    losses_of = [[row["train/loss"] for row in run.history] for run in (whole, parts, former)]
    assert losses_of[1] == pytest.approx(losses_of[0], rel=1e-4)
    assert losses_of[2] != pytest.approx(losses_of[0], rel=1e-2)


# -- augmented waveforms --------------------------------------------------------------------------------------------

IDLE = {
    **{
        kind: {"p": 0.0}
        for kind in (
            "noise",
            "gain",
            "time_shift",
            "between_class",
            "equalizer",
            "time_stretch",
            "pitch_shift",
            "speed",
        )
    },
    **{kind: {"p": 0.0, "on": "waveform"} for kind in ("mixup", "cutmix")},
}


@pytest.mark.parametrize("features", ["log_mel", "mfcc"])
def test_an_augmentation_that_changes_nothing_is_none(features: str, runtime: Runtime, tmp_path: Path) -> None:
    """An arm of probability 0 is the plain arm, bit for bit: the same windows of the same features."""
    kind = {"kind": features, "n_fft": 256, "hop_length": 128, "n_mels": 32}
    changes = {"features": kind, "data__clip_seconds": 0.5, "training__epochs": 2}
    train({**changes, "augment": {}}, runtime, tmp_path / "plain")
    train({**changes, "augment": IDLE}, runtime, tmp_path / "idle")
    plain, idle = (read(tmp_path / name / "last.safetensors") for name in ("plain", "idle"))
    for name, tensor in plain.tensors.items():
        assert torch.equal(tensor, idle.tensors[name]), name
    train({**changes, "augment": IDLE}, runtime, tmp_path / "former", FORMER)
    former = read(tmp_path / "former" / "last.safetensors")
    assert any(not torch.equal(tensor, former.tensors[name]) for name, tensor in plain.tensors.items())


def test_an_own_augmentation_that_changes_its_input_is_not_lost(runtime: Runtime) -> None:
    class InPlace(Augmentation, kind="in_place"):
        domain = "waveform"

        def build(self, sample_rate: int, hop_length: int) -> Any:
            return lambda x, random: x.mul_(0.1)

    try:
        prepared = prepare(runtime, augment={"in_place": {}})
        batch = next(prepared.batches.train(0))
        x, _ = augment(prepared.chain, batch, generator(0, "augment"), True)
    finally:
        Augmentation._members.pop("in_place")
    assert batch.packed is not None
    assert not torch.equal(x, prepared.chain.classifier.normaliser(batch.packed))


def test_features_of_changed_waveforms_are_as_packed(runtime: Runtime) -> None:
    """The fresh path by itself gives the packed features, up to the edges of a window and a half-precision rounding."""

    class Same(Augmentation, kind="same"):
        domain = "waveform"

        def build(self, sample_rate: int, hop_length: int) -> Any:
            return lambda x, random: torch.nextafter(x, torch.full_like(x, 2.0))  # changed, but for no ear

    try:
        prepared = prepare(runtime, augment={"same": {}}, data__clip_seconds=0.5)
        batch = next(prepared.batches.train(0))
        assert batch.packed is not None
        fresh, _ = augment(prepared.chain, batch, generator(0, "augment"), True)
    finally:
        Augmentation._members.pop("same")
    expected = prepared.chain.classifier.normaliser(batch.packed)
    inner = slice(1, -1)  # a window of 256 samples around each frame, 128 apart: only the first and last see the edge
    assert (fresh - expected)[..., inner].abs().max() < 0.01
    assert not torch.equal(fresh, expected)
    assert torch.equal(batch.packed, batch.packed.half().float())


# -- masks ------------------------------------------------------------------------------------------------------------


def test_masks_mean_the_same_before_and_after_normalisation(runtime: Runtime) -> None:
    """Features masked without normalisation, then normalised, are features that were normalised, then masked."""
    mask = {"specaugment": {"time_mask_frames": 6, "freq_mask_bins": 4}}
    plain = {"kind": "log_mel", "n_fft": 256, "hop_length": 128, "n_mels": 32}
    band = prepare(runtime, augment=mask, features={**plain, "normalise": "band"})
    none = prepare(runtime, augment=mask, features={**plain, "normalise": "none"})
    out = []
    for prepared in (band, none):
        x, _ = augment(prepared.chain, next(prepared.batches.train(0)), generator(0, "augment"), False)
        out.append(x)
    torch.testing.assert_close(band.chain.classifier.normaliser(out[1]), out[0], rtol=1e-4, atol=1e-4)
    assert (out[0] == 0).any()
    assert not (out[1] == 0).any(), "0 dB is no mean of these clips"
    former = prepare(runtime, FORMER, augment=mask, features={**plain, "normalise": "none"})
    x, _ = augment(former.chain, next(former.batches.train(0)), generator(0, "augment"), False)
    assert (x == 0).any()
    assert all(op.centre is None for op in band.chain.augment.features if isinstance(op, Masks))


# -- versions -----------------------------------------------------------------------------------------------------------


def test_corrections_name_what_changes_a_run() -> None:
    plain = experiment(augment={})
    assert corrections(plain, 100) == ""
    assert corrections(plain, 97) == "steps counted"  # 97 clips in batches of 8 leave one over
    assert corrections(plain.override({"schedule": "constant"}), 97) == ""
    cases = {
        "EMA warm-up": {"training.ema_decay": 0.9},
        "steps counted": {"sampling": "repeat_factor"},
        "one-cycle ends on the last step": {"schedule": "one_cycle"},
        "augmented windows as packed": {"augment": {"gain": {}}},
        "masks hold the mean": {"augment": {"specaugment": {}}, "features.normalise": "none"},
    }
    for words, changes in cases.items():
        changed = plain.override(changes)
        assert corrections(changed, 100) == words
        assert corrections(changed, 100, FORMER) == ""


def test_a_run_of_the_former_rules_goes_on_by_them(runtime: Runtime, tmp_path: Path) -> None:
    """And is refused by the present ones, where they would change it half-way."""
    changes = {"training__ema_decay": 0.9, "schedule": "one_cycle"}
    whole = train(changes, runtime, tmp_path / "whole", FORMER)
    train(changes, runtime, tmp_path / "cut", FORMER, epochs=2)
    assert CheckpointStore(tmp_path / "cut").begun_rules() == FORMER
    with pytest.raises(ConfigError, match=r"version 0.*version 1: EMA warm-up, one-cycle .* would change half-way"):
        train(changes, runtime, tmp_path / "cut")
    assert curve(train(changes, runtime, tmp_path / "cut", FORMER)) == curve(whole)
    assert CheckpointStore(tmp_path / "none").begun_rules() is None
    now = train(changes, runtime, tmp_path / "now")
    assert CheckpointStore(tmp_path / "now").begun_rules() == RULES
    assert not np.array_equal([row["train/loss"] for row in now.history], [row["train/loss"] for row in whole.history])


def test_averaged_weights_resume_with_their_count(runtime: Runtime, tmp_path: Path) -> None:
    changes = {"training__ema_decay": 0.9, "training__epochs": 3}
    whole = train(changes, runtime, tmp_path / "whole")
    train(changes, runtime, tmp_path / "cut", epochs=1)
    assert curve(train(changes, runtime, tmp_path / "cut")) == curve(whole)
