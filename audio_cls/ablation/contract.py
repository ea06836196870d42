"""What the runs of a suite must share before their figures may be compared, and the refusal that names what they do not.

Checked twice: here before the first run, on what is declared, and in `recorded_contract` on what the runs have recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice, repeat
from typing import Any

import numpy as np
import torch

from audio_cls.ablation.declaration import Ablation, Cell
from audio_cls.ablation.losses import follows_own_loss
from audio_cls.ablation.settling import settle
from audio_cls.core.config import Component, ComponentSet
from audio_cls.core.device import choose_precision
from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.data.groups import shared_groups, shared_groups_text
from audio_cls.data.identical import identical_on_two_sides, identical_text
from audio_cls.data.splits import Split
from audio_cls.experiment import Experiment
from audio_cls.metrics.classification import VERSION
from audio_cls.runs.folds import fold_label, folds_text, grid_text
from audio_cls.training.batches import count_batches

__all__ = [
    "Plan",
    "Planned",
    "check_declaration",
    "check_plan",
    "declared_keys",
    "optimiser_steps",
    "undeclared",
]

SHARED = ("data.corpus", "data.labels", "data.subset", "data.sample_rate", "data.split", "training.metric")
"""Keys in which no arm may differ, declared or not: other data, other clips, another choice of the best epoch."""

STEPS_TOLERANCE = 0.05
"""A budget in steps is met in whole epochs; arms may be so far apart, as a share of it."""


@dataclass(frozen=True)
class Planned:
    """One cell of a suite as declared: what it trains, on which split, for how many optimiser steps (0: fitted at once)."""

    arm: str
    seed: int
    fold: int
    experiment: Experiment
    split_digest: str
    steps: int
    n_train: int = 0

    @property
    def cell(self) -> Cell:
        return self.seed, self.fold

    @property
    def words(self) -> str:
        return f"arm {self.arm!r}, seed {self.seed}" + (f", fold {self.fold}" if self.fold else "")


@dataclass(frozen=True)
class Plan:
    """All cells of a suite, by seed, fold and arm, so that after the first round every arm has a run.

    test_to_train: clips measured on for each clip trained on, the mean over folds.
    fold_names: of the group that is left out, else the fold's number; empty if the split stays as the base has it.
    """

    cells: tuple[Planned, ...]
    folds: tuple[int, ...]
    test_to_train: float
    terms: tuple[tuple[str, str], ...]  # the contract, (what, value)
    fold_names: Mapping[int, str] = field(default_factory=dict)


def check_plan(ablation: Ablation, corpus: Corpus, device: torch.device | None = None) -> Plan:
    """Return the cells of a suite on a corpus, once it is certain that they can be compared.

    Without a device (when reporting) precision is compared as asked for; what was computed in is on record.

    Raises:
        UserError: naming the difference: an undeclared key, a fold that is not there, a group on two sides of the split,
            unequal budgets or precision.
    """
    where = f"ablation {ablation.name!r}"
    if ablation.complete is None:
        ablation, _ = settle(ablation, corpus)
    check_declaration(ablation)
    have = ablation.base.data.split.folds(corpus)
    folds: tuple[int, ...] = (0,)
    if ablation.folds == "all":
        folds = tuple(have)
        if not folds:
            raise UserError(
                f"{where}: folds='all', but {corpus.name!r} names no folds for data.split.kind={ablation.base.data.split.kind}: set "
                "data.split=k_fold, which makes folds, or folds=None"
            )
    elif ablation.folds is not None:
        folds = tuple(int(f) for f in ablation.folds)
    ratios, cells = [], []
    splits: dict[int, Split] = {}
    for fold in folds:
        try:
            splits[fold] = ablation.experiment(ablation.reference, 0, fold).data.assign(corpus)
        except UserError as error:
            at = f", {fold_label(fold, have.get(fold, ''))}" if fold else ""
            raise UserError(f"{where}{at}: {error}") from None
        ratios.append(len(splits[fold].validation) / len(splits[fold].train))
    for seed in tuple(ablation.seeds):
        for fold in folds:
            row = [_plan(ablation, arm, seed, fold, corpus, splits[fold]) for arm in ablation.arms]
            _check_row(ablation, row, device)
            cells += row
    names = {fold: have.get(fold, str(fold)) for fold in folds if ablation.fold_key}
    shared = max(len(shared_groups(corpus, split)) for split in splits.values())
    identical = max(len(identical_on_two_sides(corpus, split)) for split in splits.values())
    remarks = (("groups", shared_groups_text(shared)), ("duplicates", identical_text(identical)))
    terms = _terms(ablation, corpus, cells, names) + tuple((what, text) for what, text in remarks if text)
    return Plan(tuple(cells), folds, float(np.mean(ratios)), terms, names)


def check_declaration(ablation: Ablation) -> None:
    """Refuse an arm that differs from the reference in more than its declared keys.

    Raises:
        UserError: naming arm, key and both values.
    """
    reference = ablation.arm(ablation.reference)
    for arm, changes in ablation.arms.items():
        where = f"ablation {ablation.name!r}, arm {arm!r}"
        for key in declared_keys(changes):
            if any(key == shared or key.startswith(f"{shared}.") or shared.startswith(f"{key}.") for shared in SHARED):
                raise UserError(f"{where} overrides {key}: the arms of a suite share data, split and training.metric")
        declared = declared_keys(changes) | declared_keys(ablation.arms[ablation.reference])
        hidden = undeclared(ablation.arm(arm), reference, declared)
        if hidden:
            lines = "; ".join(f"{key} is {a!r}, in {ablation.reference!r} {b!r}" for key, (a, b) in hidden.items())
            listed = ", ".join(sorted(changes)) or "nothing"
            raise UserError(
                f"{where} declares {listed}, but differs in more: {lines}. Another kind brings its own defaults: declare these "
                "keys as well, or set them to the reference's values"
            )


def declared_keys(overrides: Mapping[str, Any]) -> set[str]:
    """Return the dotted keys that overrides name, also inside nested values."""
    keys: set[str] = set()
    for key, value in overrides.items():
        keys.add(key)
        if isinstance(value, Component):
            value = value.to_dict()
        if isinstance(value, Mapping):
            keys |= {f"{key}.{inner}" for inner in declared_keys(value)}
    return keys


def undeclared(one: Component, other: Component, declared: set[str]) -> dict[str, tuple[Any, Any]]:
    """Return the keys in which two experiments differ beyond those declared, with both values.

    A key that exists on one side only is covered by the kind or the member whose key it is; a key that exists on both sides
    must be declared itself, also where a change of kind has reset it to a default.
    """
    a, b = present(one), present(other)
    scopes = [key.removesuffix("kind") if key.endswith(".kind") else f"{key}." for key in declared]
    for key in declared:  # augment.mixup.alpha puts mixup in
        member = key.rpartition(".")[0]
        if (member in a) != (member in b):
            scopes += [f"{member}."]
    out: dict[str, tuple[Any, Any]] = {}
    for key in sorted(a.keys() | b.keys()):
        both = key in a and key in b
        if key in declared or (both and a[key] == b[key]):
            continue
        if not both and any(key.startswith(scope) or key == scope[:-1] for scope in scopes):
            continue
        if key.endswith(".kind") and key.removesuffix(".kind") in declared:
            continue
        out[key] = (a.get(key, "absent"), b.get(key, "absent"))
    return out


def present(value: Component, prefix: str = "") -> dict[str, Any]:
    """Return the keys that exist in this very value, flat: unlike in `flatten`, what does not apply is missing."""
    out: dict[str, Any] = {}
    if isinstance(value, ComponentSet):
        for item in value.items:
            inner = present(item, f"{prefix}{item.kind}.")
            inner.pop(f"{prefix}{item.kind}.kind", None)
            out |= {f"{prefix}{item.kind}": "on", **inner}
        return out
    if value.kind:
        out[f"{prefix}kind"] = value.kind
    for name in type(value).model_fields:
        field = getattr(value, name)
        if isinstance(field, Component):
            out |= present(field, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = field
    return out


def optimiser_steps(experiment: Experiment, targets: np.ndarray) -> int:
    """Return the number of steps that a run takes on training targets (n, n_classes): its epochs times batches, as its
    sampling deals them.
    """
    if experiment.model.closed_form:
        return 0
    return sum(islice(_steps(experiment, targets), experiment.training.epochs))


def _steps(experiment: Experiment, targets: np.ndarray) -> Iterator[int]:
    """Return the steps of epoch after epoch, without an end."""
    order, size = experiment.sampling.build(targets), experiment.training.batch_size
    if experiment.sampling.kind in ("uniform", "balanced"):
        yield from repeat(count_batches(len(targets), size))
    yield from (count_batches(len(order(experiment.seed, epoch)), size) for epoch in count())


def _epochs_for(experiment: Experiment, targets: np.ndarray, steps: int) -> int:
    """Return the number of epochs that comes nearest to a number of steps, at least one."""
    done = 0
    for epoch, more in enumerate(_steps(experiment, targets)):
        if done + more >= steps:
            return max(1, epoch + (steps - done > done + more - steps))
        done += more
    raise AssertionError("epochs do not end")


def _plan(ablation: Ablation, arm: str, seed: int, fold: int, corpus: Corpus, split: Split) -> Planned:
    experiment = ablation.experiment(arm, seed, fold)
    targets = np.asarray(corpus.targets[split.train])
    if ablation.unit == "steps" and not experiment.model.closed_form:
        epochs = _epochs_for(experiment, targets, ablation.budget or 0)
        experiment = experiment.override({"training.epochs": epochs})
    return Planned(arm, seed, fold, experiment, split.digest, optimiser_steps(experiment, targets), len(targets))


def _check_row(ablation: Ablation, row: list[Planned], device: torch.device | None) -> None:
    """The arms at one seed and fold: equal budget, equal precision."""
    reference = next(p for p in row if p.arm == ablation.reference)
    for planned in row:
        mine, theirs = planned.experiment.training, reference.experiment.training
        slack = STEPS_TOLERANCE * reference.steps if ablation.unit == "steps" else 0
        unequal = abs(planned.steps - reference.steps) > slack
        if "budget" not in ablation.differs and (
            unequal
            or mine.early_stopping != theirs.early_stopping
            or (ablation.unit == "epochs" and mine.epochs != theirs.epochs)
        ):
            raise UserError(
                f"ablation {ablation.name!r}, {planned.words}: unequal budgets: {_budget(planned)}; the reference "
                f"{ablation.reference!r}: {_budget(reference)}. Give the suite a budget in steps (budget=..., unit='steps'), "
                "or say that it is meant: differs=('budget',)"
            )
        a, b = (choose_precision(t.precision, device) if device else t.precision for t in (mine, theirs))
        if a != b and "precision" not in ablation.differs:
            raise UserError(
                f"ablation {ablation.name!r}, {planned.words}: computes in {a}, the reference {ablation.reference!r} in {b}: set "
                "training.precision in the base, or say that it is meant: differs=('precision',)"
            )


def _budget(planned: Planned) -> str:
    training = planned.experiment.training
    if planned.experiment.model.closed_form:
        return "fitted at once"
    stop = f", stopped after {training.early_stopping} without progress" if training.early_stopping else ""
    return (
        f"{planned.steps} steps ({training.epochs} epochs, batches of {training.batch_size}, {planned.experiment.sampling.kind} "
        f"sampling{stop})"
    )


def _terms(
    ablation: Ablation, corpus: Corpus, cells: list[Planned], fold_names: Mapping[int, str]
) -> tuple[tuple[str, str], ...]:
    reference = next(p for p in cells if p.arm == ablation.reference)
    seeds = sorted({p.seed for p in cells})
    split = reference.experiment.data.split
    steps = sorted({p.steps for p in cells})
    spread = f"{steps[0]} to {steps[-1]} by arm and fold" if len(steps) > 1 else str(steps[0])
    return (
        ("data", f"{corpus.name}, {len(corpus)} clips, digest {corpus.digest[:16]}"),
        ("split", f"{split.kind}" + (f", folds {folds_text(fold_names)}" if fold_names else "")),
        ("seeds", ", ".join(map(str, seeds))),
        ("runs", grid_text(arms=len(ablation.arms), seeds=len(seeds), folds=max(1, len(fold_names)))),
        ("judged by", f"{', '.join(ablation.metrics)} of the {ablation.select} epoch; metric code version {VERSION}"),
        ("budget", f"{reference.experiment.training.epochs} epochs in the reference, optimiser steps: {spread}"),
        ("an arm differs in", "its declared keys and nothing else"),
        ("paired by", "seed and fold: same initial weights where model, features and initial bias are the same, same clip order where sampling is"),
        ("declared to differ", ", ".join(ablation.differs) or "nothing more"),
        *([("follows each arm's own loss", follows)] if (follows := follows_own_loss(ablation)) else []),
    )  # fmt: skip
