"""What every sampling, optimiser and schedule must hold."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch

from audio_cls.components.optim import Optimizer, Schedule
from audio_cls.components.sampling import Sampling
from audio_cls.components.shapes import check_sampling
from audio_cls.core.config import ConfigError
from audio_cls.doctor.findings import Check, Wrong, expect, seeded

__all__ = ["OPTIMIZER_CHECKS", "SAMPLING_CHECKS", "SCHEDULE_CHECKS"]


# -- sampling ---------------------------------------------------------------------------------------------------------


def _target_tables() -> dict[str, np.ndarray]:
    one = np.zeros((30, 3), np.float32)
    one[np.arange(30), [0] * 20 + [1] * 8 + [2] * 2] = 1
    several = one.copy()
    several[::4, 1] = 1
    several[5] = 0  # no label at all
    return {"one label a clip": one, "several labels, or none, a clip": several, "one clip": one[:1]}


def check_rows(config: Sampling) -> None:
    for name, targets in _target_tables().items():
        given = targets.copy()
        order: Any = config.build(given)
        expect(callable(order), f"build gives a {type(order).__name__}", "return a function of (seed, epoch)")
        try:
            check_sampling(config, order, len(targets), 0)
        except ConfigError as error:
            raise Wrong(
                f"{error} ({name})", "return rows of the training clips, int64 (n,), from build(targets)(seed, epoch)"
            ) from None
        expect(len(order(0, 0)), f"an epoch has no clips ({name})", "return one row at least")
        expect(np.array_equal(given, targets), f"it changes the targets ({name})", "copy before an operation in place")


def check_epochs(config: Sampling) -> None:
    targets = _target_tables()["one label a clip"]
    order = config.build(targets)
    later = np.asarray(order(0, 5))
    for _ in range(2):
        order(0, 0)
    expect(
        np.array_equal(order(0, 5), later) and np.array_equal(config.build(targets)(0, 5), later),
        "one seed and epoch give two orders",
        "draw from audio_cls.core.rng.numpy_rng(seed, 'sampling', epoch) alone: a resumed run asks for epoch 5 first",
    )
    expect(
        any(not np.array_equal(order(0, 0), order(0, epoch)) for epoch in range(1, 4)),
        "every epoch has the same order",
        "let the epoch take part in the random numbers",
    )


SAMPLING_CHECKS: dict[str, Check] = {"rows": check_rows, "epochs": check_epochs}


# -- optimisers -------------------------------------------------------------------------------------------------------


def _steps(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter, n: int) -> None:
    target = seeded(4, 3, seed=1)
    for _ in range(n):
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()


def _built(config: Optimizer) -> tuple[torch.optim.Optimizer, torch.nn.Parameter]:
    weight = torch.nn.Parameter(seeded(4, 3))
    return _checked(config.build([weight])), weight


def _checked(made: Any) -> torch.optim.Optimizer:
    expect(
        isinstance(made, torch.optim.Optimizer),
        f"build gives a {type(made).__name__}",
        "return a torch.optim.Optimizer",
    )
    optimizer: torch.optim.Optimizer = made
    return optimizer


def check_steps(config: Optimizer) -> None:
    optimizer, weight = _built(config)
    rates = [group.get("lr") for group in optimizer.param_groups]
    expect(
        rates == [config.lr],
        f"its groups have the learning rates {rates}, not lr={config.lr:g}",
        "pass lr=self.lr: schedules scale it",
    )
    target = seeded(4, 3, seed=1)
    before = float((weight.detach() - target).square().sum())
    _steps(optimizer, weight, 5)
    after = float((weight.detach() - target).square().sum())
    expect(after < before, f"five steps take a square from {before:.4g} to {after:.4g}", "step against the gradient")


def check_groups(config: Optimizer) -> None:
    weights = [torch.nn.Parameter(seeded(2)), torch.nn.Parameter(seeded(2))]
    groups: list[dict[str, Any]] = [
        {"params": [weights[0]], "lr_factor": 0.1},
        {"params": [weights[1]], "lr_factor": 1.0},
    ]
    optimizer = _checked(config.build(groups))
    kept = [group.get("lr_factor") for group in optimizer.param_groups]
    expect(
        len(kept) == 2 and kept == [0.1, 1.0],
        f"two groups of parameters become {len(kept)} with the factors {kept}",
        "pass what build is given on to torch.optim as it is: pretrained layers have rates of their own",
    )


def check_resumption(config: Optimizer) -> None:
    whole, weight = _built(config)
    _steps(whole, weight, 3)
    state, values = copy.deepcopy(whole.state_dict()), weight.detach().clone()
    _steps(whole, weight, 2)
    resumed, again = _built(config)
    with torch.no_grad():
        again.copy_(values)
    resumed.load_state_dict(state)
    _steps(resumed, again, 2)
    expect(
        torch.equal(again, weight),
        "resumed from its state_dict it takes other steps",
        "keep all state in self.state, see torch.optim",
    )


OPTIMIZER_CHECKS: dict[str, Check] = {"steps": check_steps, "groups": check_groups, "resumption": check_resumption}


# -- schedules --------------------------------------------------------------------------------------------------------


def _history(epochs: int) -> list[dict[str, Any]]:
    names = ("train/loss", "val/loss", "val/nll", "val/macro_f1", "val/accuracy")
    return [{"epoch": k, **{name: 1.0 / (1 + min(k, 4)) for name in names}} for k in range(epochs)]


def check_factors(config: Schedule) -> None:
    epochs, history = 12, _history(12)
    for epoch in np.linspace(0, epochs, 49).tolist():
        known = history[: int(epoch)]
        given = copy.deepcopy(known)
        factor = config.factor(epoch, epochs, given, 0.25)
        expect(
            isinstance(factor, (int, float)) and math.isfinite(factor) and factor >= 0,
            f"factor gives {factor!r} at epoch {epoch:g} of {epochs}",
            "return a finite number, 0 or more",
        )
        expect(given == known, "it changes the history", "read it only")
        expect(
            config.factor(epoch, epochs, given, 0.25) == factor,
            "two calls give two factors",
            "keep no state: the history holds it",
        )
    largest = max(config.factor(e, epochs, history[: int(e)], 0.25) for e in np.linspace(0, epochs, 49).tolist())
    expect(
        largest > 0, "the learning rate is zero throughout", "return factors of the peak learning rate, 1 at the peak"
    )
    one = config.factor(0.5, 1, [], 0.5)
    expect(math.isfinite(one), f"factor gives {one!r} in a training of one epoch", "guard a division by the epochs")


SCHEDULE_CHECKS: dict[str, Check] = {"factors": check_factors}
