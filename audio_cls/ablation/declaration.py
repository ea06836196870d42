"""What an ablation is: a base experiment, arms that differ in named keys, a reference, a grid of seeds and folds. Values only.

ABLATION = Ablation("esc10-augmentation", base=BASE, reference="plain", metric="val/macro_f1", seeds=range(3),
                    arms={"plain": {}, "mixup": {"augment.mixup": "on"}})
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from audio_cls.core.auto import AUTO
from audio_cls.core.config import ConfigError
from audio_cls.core.errors import UserError, choices
from audio_cls.core.loading import declaration
from audio_cls.core.names import check_name
from audio_cls.data.splits import SplitScheme
from audio_cls.experiment import Experiment
from audio_cls.metrics.classification import check_metric
from audio_cls.metrics.published import Published, check_published

__all__ = ["Ablation", "Cell", "Tune", "identity_changes", "load_ablation"]

POINTS = ("budget", "precision")
"""The points of the contract that an ablation may declare to differ."""

MOST = 2**63 - 1
"""The largest seed or fold of a grid."""

Cell = tuple[int, int]
"""(seed, fold); fold 0 where there are no folds."""


@dataclass(frozen=True)
class Tune:
    """An equal search for every arm before it runs: `trials` configurations of `space(trial)`, a function as a study has it.

    Each trial trains the arm on the first fold with a seed that the grid does not use; the best one's overrides join the arm.
    """

    space: Callable[[Any], dict[str, Any]]
    trials: int
    seed: int = 0


@dataclass(frozen=True)
class Ablation:
    """A comparison of arms, each an experiment that differs from `base` by its overrides and in nothing else.

    Attributes:
        name: of the suite: its folder, its runs in MLflow.
        base: what all arms share.
        reference: the arm that the others are compared with.
        arms: name -> dotted overrides. An arm may override `seed`, which then counts up from there: two arms equal except for
            their seeds make an A/A suite.
        metric: what is judged, or several, the first of which the verdicts are about.
        seeds: of the grid.
        folds: of the grid: "all", numbers, or None for the split as the base has it. A fold sets the key that the kind of
            split names (`SplitScheme.fold_key`); for `grouped`, a fold is another random split.
        budget: for every run, in `unit`s; None leaves the base's epochs. With "steps" each arm gets as many epochs as come
            nearest to so many optimiser steps, so that arms with other batch sizes or sampling stay comparable.
        select: which epoch a run is judged by. "last", the default: nobody chose it, whereas the best of many epochs
            is chosen on the very clips that are reported, which favours the arm whose curve jumps most. "best" needs `metric`
            to be the base's `training.metric`.
        differs: points of the contract in which arms are meant to differ (`budget`, `precision`); the report says so.
        margin: below it, in the metric's units, is no difference, and beyond it an arm is called better or worse in probabilities;
            None takes one point.
        question: what the suite asks, for the report.
        tune: a search for each arm first, of equal size.
        published: figures of others, shown greyed beside ours. They are part of no statistic and no verdict, nor of what makes it
            this suite: they may be added later.
        complete: fills in what an arm leaves to the data; set by the commands, which know the corpus.

    Raises:
        UserError: for what does not hold, naming arm, key and the nearest match.
    """

    name: str
    base: Experiment
    reference: str
    arms: Mapping[str, Mapping[str, Any]]
    metric: str | Iterable[str] = "val/macro_f1"
    seeds: Iterable[int] = (0, 1, 2)
    folds: Literal["all"] | Iterable[int] | None = "all"
    budget: int | None = None
    unit: Literal["epochs", "steps"] = "epochs"
    select: Literal["last", "best"] = "last"
    differs: tuple[str, ...] = ()
    margin: float | None = None
    question: str = ""
    tune: Tune | None = field(default=None, compare=False)
    published: Iterable[Published] = field(default=(), compare=False)
    complete: Callable[[Experiment], Experiment] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        where = f"ablation {self.name!r}"
        if not isinstance(self.arms, Mapping):
            raise UserError(f"{where}: arms must be a dictionary, name -> dotted overrides, found {self.arms!r}")
        check_name(self.name, "a suite")
        for arm in self.arms:
            check_name(arm, f"an arm of {where}")
        if not isinstance(self.base, Experiment):
            raise UserError(f"{where}: base must be an Experiment, found {type(self.base).__name__}")
        if len(self.arms) < 2:
            raise UserError(f"{where}: it takes two arms to compare, found {len(self.arms)}")
        if not isinstance(self.reference, str) or self.reference not in self.arms:
            raise UserError(
                f"{where}: reference={self.reference!r} is no arm. {choices(str(self.reference), self.arms)}"
            )
        for key, value, allowed in (
            ("unit", self.unit, ("epochs", "steps")),
            ("select", self.select, ("last", "best")),
        ):
            if value not in allowed:
                raise UserError(f"{where}: {key}={value!r}. {choices(str(value), allowed)}")
        if self.unit == "steps" and self.budget is None:
            raise UserError(f"{where}: unit='steps' needs budget=..., the optimiser steps of a run")
        if self.budget is not None and (not isinstance(self.budget, int) or self.budget < 1):
            raise UserError(f"{where}: budget={self.budget!r}: expected a number of {self.unit}, 1 or more")
        if self.margin is not None and not (isinstance(self.margin, (int, float)) and 0 < self.margin < inf):
            raise UserError(
                f"{where}: margin={self.margin!r}: expected a number above 0, in the metric's units (0.01 is 1 point)"
            )
        if not isinstance(self.question, str):
            raise UserError(f"{where}: question must be text, found {self.question!r}")
        self._freeze(where)
        for point in self.differs:
            if point not in POINTS:
                raise UserError(f"{where}: differs names {point!r}. {choices(str(point), POINTS)}")
        if not self.metrics:
            raise UserError(f"{where}: metric=(): expected a metric such as 'val/macro_f1', or several")
        for metric in self.metrics:
            check_metric(metric)
            if not metric.startswith("val/"):
                raise UserError(f"{where}: metric={metric!r}: arms are compared on validation data: val/...")
        if self.select == "best" and self.base.training.metric != self.metrics[0]:
            raise UserError(
                f"{where}: select='best', but the best epoch is chosen by training.metric={self.base.training.metric!r} "
                f"and judged by {self.metrics[0]!r}: make them equal, or select='last'"
            )
        split = self.base.data.split
        if self.folds not in (None, "all") and not split.fold_key and split.kind != AUTO:
            kinds = [kind for kind, scheme in SplitScheme.members().items() if getattr(scheme, "fold_key", "")]
            raise UserError(
                f"{where}: data.split.kind={split.kind} has no folds {self.folds}: set folds=None, or split by one of {', '.join(kinds)}"
            )
        if self.folds == "all" and split.any_fold:
            raise UserError(
                f"{where}: data.split.kind={split.kind} draws a split for any number: name them, folds=range(5)"
            )
        for arm in self.arms:
            if arm != self.reference and self.arm(arm) == self.arm(self.reference):
                raise UserError(
                    f"{where}: the arm {arm!r} is the same experiment as the reference {self.reference!r}. For two equal arms "
                    f'with other seeds (an A/A suite): {{"seed": 1000}}'
                )

    def _freeze(self, where: str) -> None:
        """Replace what the caller could still change, or could be read only once, by copies."""
        for arm, changes in self.arms.items():
            if not isinstance(changes, Mapping):
                raise UserError(
                    f"{where}, arm {arm!r}: expected a dictionary of dotted keys, such as {{'augment.mixup.alpha': 0.3}}, "
                    f"found {changes!r}"
                )
        arms = {arm: MappingProxyType(dict(changes)) for arm, changes in self.arms.items()}
        object.__setattr__(self, "arms", MappingProxyType(arms))
        object.__setattr__(self, "seeds", _numbers(where, "seeds", self.seeds))
        if self.folds is not None and self.folds != "all":
            object.__setattr__(self, "folds", _numbers(where, "folds", self.folds))
        object.__setattr__(self, "metric", _names(where, "metric", self.metric))
        object.__setattr__(self, "published", check_published(where, self.published, arms))
        object.__setattr__(self, "differs", _names(where, "differs", self.differs))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics, the one that verdicts are about first."""
        return tuple(self.metric)

    @property
    def fold_key(self) -> str | None:
        """The dotted key that a fold sets; None for the split as the base has it, and while that is left to the data."""
        key = self.base.data.split.fold_key
        return None if self.folds is None or not key else f"data.split.{key}"

    def arm(self, name: str) -> Experiment:
        """Return the experiment of an arm, before seed and fold are set.

        Raises:
            ConfigError: for an override that does not hold, naming suite, arm and key.
        """
        try:
            budget = {"training.epochs": self.budget} if self.budget is not None and self.unit == "epochs" else {}
            experiment = self.base.override(budget).override(self.arms[name]).check()
            experiment.data.refuse_overfit("a suite")
            return experiment if self.complete is None else self.complete(experiment)
        except ConfigError as error:
            raise ConfigError(f"ablation {self.name!r}, arm {name!r}: {error}", error.unknown) from None

    def experiment(self, arm: str, seed: int, fold: int) -> Experiment:
        """Return the experiment of one cell, except for the epochs that a budget in steps gives it."""
        experiment = self.arm(arm)
        changes: dict[str, Any] = {"seed": seed + experiment.seed - self.base.seed}
        if self.fold_key is not None:
            changes[self.fold_key] = fold
        return experiment.override(changes)

    def identity(self) -> dict[str, Any]:
        """Return what makes it this suite, as plain JSON. Seeds, folds and further arms may join later, the rest
        may not change.
        """
        return {
            "base": self.base.to_dict(),
            "reference": self.reference,
            "arms": {arm: {k: _plain(v) for k, v in changes.items()} for arm, changes in self.arms.items()},
            "metric": list(self.metrics),
            "budget": self.budget,
            "unit": self.unit,
            "select": self.select,
            "differs": list(self.differs),
            "margin": self.margin,
            "tune": self.tune.trials if self.tune else None,
        }


def identity_changes(stored: Mapping[str, Any], ablation: Ablation) -> list[str]:
    """In what a declaration contradicts the identity that its suite was started with; a line each, empty for nothing."""
    declared, lines = ablation.identity(), []
    for key in ("reference", "metric", "budget", "unit", "select", "differs", "margin", "tune"):
        if stored.get(key) != declared[key]:
            lines.append(f"{key}: {stored.get(key)!r} -> {declared[key]!r}")
    before = Experiment.parse(stored["base"], "the stored base")
    lines += [f"base.{key}: {old!r} -> {new!r}" for key, (old, new) in before.diff(ablation.base).items()]
    for arm in stored["arms"].keys() & declared["arms"].keys():
        if stored["arms"][arm] != declared["arms"][arm]:
            lines.append(f"arm {arm!r}: {stored['arms'][arm]!r} -> {declared['arms'][arm]!r}")
    return lines


def load_ablation(path: Path) -> Ablation:
    """Return the ablation that a Python file declares (ABLATION).

    Raises:
        UserError: when the file fails (naming file and line), or declares none or several.
    """
    return declaration(Path(path), Ablation)


def _listed(where: str, what: str, values: Any, expected: str) -> tuple[Any, ...]:
    try:
        return tuple(values)
    except TypeError:
        raise UserError(f"{where}: {what}={values!r}: expected {expected}") from None


def _numbers(where: str, what: str, values: Any) -> tuple[int, ...]:
    expected = "distinct numbers from 0 on, for example range(3)"
    numbers = _listed(where, what, values, expected)
    right = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= MOST for n in numbers)
    if not numbers or not right or len(set(numbers)) < len(numbers):
        raise UserError(f"{where}: {what}={values!r}: expected {expected}")
    return numbers


def _names(where: str, what: str, values: Any) -> tuple[str, ...]:
    names = (values,) if isinstance(values, str) else _listed(where, what, values, "a name, or several")
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"{where}: {what}={values!r}: expected a name, or several, and {name!r} is none")
    return names


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain(v) for v in value]
    return value.to_dict() if hasattr(value, "to_dict") else value
