"""Schedules against torch's own, and optimisers whose state survives a checkpoint."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from audio_cls.components.optim import Constant, Cosine, CosineRestarts, OneCycle, Optimizer, Plateau, Schedule, Step
from audio_cls.core.config import ConfigError
from audio_cls.training.checkpoint import load_optimizer_state, optimizer_state

EPOCHS = 20


def torch_curve(make: Any, lr: float = 1.0, steps: int = EPOCHS) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = make(optimizer)
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return out


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Cosine(), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, EPOCHS)),
        (Cosine(final=0.1), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, EPOCHS, eta_min=0.1)),
        (
            CosineRestarts(cycles=4, final=0.1),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, EPOCHS // 4, eta_min=0.1),
        ),
        (Step(step_epochs=7, gamma=0.3), lambda o: torch.optim.lr_scheduler.StepLR(o, 7, 0.3)),
        (Constant(), lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    ],
)
def test_parity_with_torch(ours: Schedule, theirs: Any) -> None:
    assert [ours.factor(e, EPOCHS) for e in range(EPOCHS)] == pytest.approx(torch_curve(theirs), abs=1e-9)


@pytest.mark.parametrize(
    ("cycles", "epochs", "ends"),
    [(4, 20, (5, 10, 15, 20)), (3, 20, (7, 13, 20)), (5, 7, (1, 3, 4, 6, 7)), (3, 3, (1, 2, 3))],
)
def test_restarts_come_where_an_epoch_ends(cycles: int, epochs: int, ends: tuple[int, ...]) -> None:
    """Whole epochs, lengths that differ by one at most; the rate is smallest before each end and back at 1 after it."""
    schedule = CosineRestarts(cycles=cycles)
    assert schedule.snapshot_epochs(epochs) == ends
    schedule.check(epochs)
    for end in ends:
        assert schedule.factor(end - 1e-6, epochs) < 1e-9
        if end < epochs:
            assert schedule.factor(end, epochs) == 1
    with pytest.raises(ConfigError, match=f"schedule.cycles={cycles}"):
        schedule.check(cycles - 1)
    with pytest.raises(
        ConfigError, match=f"schedule.warmup_epochs={ends[0]} is not shorter than the first of {cycles} cycles"
    ):
        CosineRestarts(cycles=cycles, warmup_epochs=ends[0]).check(epochs)


def test_one_cycle_parity() -> None:
    """torch places its peak at step pct_start * total_steps - 1, ours at the share `rise` of all epochs."""
    ours = OneCycle(rise=0.25)
    theirs = torch_curve(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, total_steps=101, pct_start=26 / 101), steps=101
    )
    assert [ours.factor(e, 100) for e in range(101)] == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("n", "epochs", "rise"), [(1, 100, 0.3), (7, 12, 0.3), (25, 4, 0.1), (3, 2, 0.9), (1, 2, 0.3)])
def test_one_cycle_is_torchs_at_every_step(n: int, epochs: int, rise: float) -> None:
    """`n` steps an epoch: the peak and the end lie one step before their share of the training."""
    ours = OneCycle(rise=rise)
    theirs = torch_curve(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 1.0, total_steps=n * epochs, pct_start=rise, cycle_momentum=False
        ),
        steps=n * epochs - 1,
    )
    mine = [ours.factor(step // n + step % n / n, epochs, (), 1 / n) for step in range(n * epochs)]
    assert mine[:-1] == pytest.approx(theirs, abs=1e-9)
    assert mine[-1] == pytest.approx(1 / 25 / 1e4, abs=1e-9)


def test_plateau_parity() -> None:
    losses = [1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.4, 0.4, 0.4, 0.4]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    ours = Plateau(gamma=0.5, patience=2)
    history: list[dict[str, Any]] = []
    for epoch, loss in enumerate(losses):
        assert ours.factor(epoch, EPOCHS, history) == optimizer.param_groups[0]["lr"]
        history.append({"val/loss": loss})
        schedule.step(loss)


@pytest.mark.parametrize("kind", sorted(Schedule.members()))
def test_every_schedule_is_positive_and_warms_up(kind: str) -> None:
    schedule = Schedule.members()[kind].parse({"warmup_epochs": 2.0})
    history = [{"val/loss": 1.0, "train/loss": 1.0}] * EPOCHS
    factors = [schedule.factor(e / 4, EPOCHS, history) for e in range(4 * EPOCHS)]
    assert all(0 <= f <= 1 for f in factors)
    assert factors[0] < 1e-6 < factors[1] < factors[4]


@pytest.mark.parametrize("kind", sorted(Optimizer.members()))
def test_optimiser_state_goes_through_a_checkpoint(kind: str) -> None:
    def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
        for seed in seeds:
            x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    def fresh() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.Flatten(), torch.nn.Linear(180, 2))
        model = model.to(memory_format=torch.channels_last)
        return model, Optimizer.members()[kind].parse({"lr": 0.01}).build(model.parameters())

    whole, optimizer = fresh()
    steps(whole, optimizer, range(6))
    first, optimizer = fresh()
    steps(first, optimizer, range(3))
    tensors, plain = optimizer_state(optimizer)
    saved = {k: v.clone().contiguous() for k, v in tensors.items()}
    second, optimizer = fresh()
    second.load_state_dict(first.state_dict())
    load_optimizer_state(optimizer, saved, plain)
    steps(second, optimizer, range(3, 6))
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("adamw", lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1e-2)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.01)),
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True)),
        ("rmsprop", lambda p: torch.optim.RMSprop(p, lr=0.01)),
        ("adagrad", lambda p: torch.optim.Adagrad(p, lr=0.01)),
    ],
)
def test_an_optimiser_steps_as_torchs_own(kind: str, theirs: Any) -> None:
    def after_three_steps(build: Any) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 8))
        optimizer = build([weight])
        assert isinstance(optimizer, torch.optim.Optimizer)
        for power in (2, 3, 4):
            optimizer.zero_grad()
            weight.pow(power).sum().backward()
            optimizer.step()
        assert weight.requires_grad
        return weight.detach()

    ours = after_three_steps(Optimizer.members()[kind].parse({"lr": 0.01}).build)
    torch.testing.assert_close(ours, after_three_steps(theirs))


def test_an_optimiser_does_not_load_the_compiler() -> None:
    code = """
import sys, torch
from audio_cls.components.optim import Optimizer
for kind in Optimizer.members().values():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = kind().build([weight])
    optimizer.zero_grad()
    weight.sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules, "scipy.stats" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
