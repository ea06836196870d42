"""What a study is: a base experiment, a space of overrides, a metric, a sampler, a pruner. Values only; nothing runs here."""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import textwrap
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from audio_cls.core.config import Component, ConfigError
from audio_cls.core.errors import UserError, choices
from audio_cls.core.loading import declaration
from audio_cls.core.names import check_name
from audio_cls.metrics.published import Published, check_published
from audio_cls.queue.record import TrialRecord
from audio_cls.queue.work import SEARCH, Direction, Kind
from audio_cls.training.rules import RULES as TRAINING_VERSION

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

__all__ = [
    "TPE",
    "Grid",
    "Median",
    "NoPruning",
    "Percentile",
    "PrunerConfig",
    "RandomSearch",
    "SamplerConfig",
    "Settled",
    "Study",
    "identity_changes",
    "load_study_file",
]

TRAINING = "training_rules"  # key of an identity: the version of the training rules; absent for the former ones
RULES = "data_rules"  # key of an identity: the version of the rules by which what is left to the data is chosen


class SamplerConfig(Component, family=True):
    """How the next configuration is chosen. Configuration k draws from (seed, k) and the history, whoever asks and when."""

    seed: int = Field(default=0, ge=0)

    @abstractmethod
    def make(self, seed: int) -> BaseSampler:
        """Return the Optuna sampler for one configuration."""
        raise NotImplementedError


class TPE(SamplerConfig, kind="tpe"):
    """Tree-structured Parzen estimator (Bergstra et al., NIPS 2011), multivariate.

    `group` samples the parameters of each branch of a conditional space together; without a branch it changes nothing.
    `constant_liar` keeps parallel workers apart: running configurations count as bad.
    """

    startup_trials: int = Field(default=10, ge=0)
    candidates: int = Field(default=24, ge=1)
    multivariate: bool = True
    group: bool = True
    constant_liar: bool = True

    def make(self, seed: int) -> BaseSampler:
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import TPESampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return TPESampler(
                seed=seed,
                n_startup_trials=self.startup_trials,
                n_ei_candidates=self.candidates,
                multivariate=self.multivariate,
                group=self.group and self.multivariate,
                constant_liar=self.constant_liar,
            )


class RandomSearch(SamplerConfig, kind="random"):
    """Independent uniform draws."""

    def make(self, seed: int) -> BaseSampler:
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)


class Grid(SamplerConfig, kind="grid"):
    """Every combination of the values that the space suggests: a complete table, in the order in which the space suggests them.

    The space takes its values from lists (`suggest_categorical`) or steps (`suggest_int`, `suggest_float` with a step). `--trials`
    is the number of rows unless given. Use `NoPruning`, or some rows hold the value of an unfinished run.
    """

    def make(self, seed: int) -> BaseSampler:
        """Return what draws a parameter that the row of a trial lacks: none does, unless the trial was enqueued by hand."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)


class PrunerConfig(Component, family=True):
    """When a trial is stopped early. Epochs are counted as the objective reports them."""

    @abstractmethod
    def make(self) -> BasePruner:
        """Return the Optuna pruner."""
        raise NotImplementedError


class Percentile(PrunerConfig, kind="percentile"):
    """Stop a trial whose best value so far is worse than the given percentile of the complete trials at the same epoch.

    `percentile=25` keeps the best quarter. No pruning before `startup_trials` trials are complete, before epoch
    `warmup_epochs`, in between every `interval` epochs, or at epochs that fewer than `min_trials` complete trials reached.
    """

    percentile: float = Field(default=50.0, ge=0.0, le=100.0)
    startup_trials: int = Field(default=5, ge=0)
    warmup_epochs: int = Field(default=0, ge=0)
    interval: int = Field(default=1, ge=1)
    min_trials: int = Field(default=1, ge=1)

    def make(self) -> BasePruner:
        from optuna.pruners import PercentilePruner

        return PercentilePruner(
            self.percentile, self.startup_trials, self.warmup_epochs, self.interval, n_min_trials=self.min_trials
        )


class Median(PrunerConfig, kind="median"):
    """`Percentile` at 50: stop a trial whose best value so far is worse than the median at the same epoch."""

    startup_trials: int = Field(default=5, ge=0)
    warmup_epochs: int = Field(default=0, ge=0)
    interval: int = Field(default=1, ge=1)
    min_trials: int = Field(default=1, ge=1)

    def make(self) -> BasePruner:
        from optuna.pruners import MedianPruner

        return MedianPruner(self.startup_trials, self.warmup_epochs, self.interval, n_min_trials=self.min_trials)


class NoPruning(PrunerConfig, kind="none"):
    """Every trial runs to its budget."""

    def make(self) -> BasePruner:
        from optuna.pruners import NopPruner

        return NopPruner()


@dataclass(frozen=True)
class Settled:
    """How what a study leaves to the data is chosen, once its corpus is known.

    Attributes:
        rules: the version of the rules by which it is chosen; part of the study's identity.
        complete: fills in what an experiment still leaves to the data.
        tags: what was chosen for the base, for the record.
        training: the version of the training rules (`training.rules`) by which its trials are trained; part of its identity.
        corrected: (experiment, version) -> what that version of the training rules changes in the experiment, in words.
    """

    rules: int
    complete: Callable[[Component], Component]
    tags: Mapping[str, str] = field(default_factory=dict)
    training: int = TRAINING_VERSION
    corrected: Callable[[Component, int], str] = lambda experiment, rules: ""


@dataclass(frozen=True)
class Study:
    """A search: `space(trial)` suggests parameters and returns the dotted keys in which a trial differs from `base`.

    `published` are figures of others, shown greyed beside ours; they are not part of what makes it this study.
    `settled` is set by the commands, which know the corpus.

    Raises:
        UserError: for a name, direction, base, space, sampler or pruner that does not hold.
    """

    name: str
    base: Component
    space: Callable[[Any], dict[str, Any]]
    metric: str = "val/macro_f1"
    direction: Direction = "maximize"
    sampler: SamplerConfig = field(default_factory=TPE)
    pruner: PrunerConfig = field(default_factory=lambda: Median(startup_trials=8, warmup_epochs=10))
    published: Iterable[Published] = field(default=(), compare=False)
    settled: Settled | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        where = f"study {self.name!r}"
        check_name(self.name, "a study")
        if self.direction not in ("maximize", "minimize"):
            raise UserError(
                f"{where}: direction={self.direction!r}. {choices(str(self.direction), ('maximize', 'minimize'))}"
            )
        for key, wanted in (("base", Component), ("sampler", SamplerConfig), ("pruner", PrunerConfig)):
            found = getattr(self, key)
            if not isinstance(found, wanted):
                allowed = f" Allowed: {', '.join(wanted.members())}." if wanted.is_family() else ""
                raise UserError(f"{where}: {key} must be a {wanted.__name__}, found {type(found).__name__}.{allowed}")
        if not callable(self.space):
            raise UserError(f"{where}: space must be a function of the trial, found {type(self.space).__name__}")
        if not isinstance(self.metric, str) or not self.metric:
            raise UserError(f"{where}: metric must be a name such as 'val/macro_f1', found {self.metric!r}")
        object.__setattr__(self, "published", check_published(where, self.published))

    @property
    def kind(self) -> Kind:
        return SEARCH

    @property
    def drawn(self) -> bool:
        return not isinstance(self.sampler, Grid)

    def make_sampler(self) -> BaseSampler:
        """Return the Optuna sampler: seeded by configuration, blind to superseded trials."""
        from audio_cls.study.samplers import build_sampler

        return build_sampler(self.sampler)

    def make_pruner(self) -> BasePruner:
        """Return the Optuna pruner, which says why it stops a trial and leaves revived trials alone."""
        from audio_cls.study.pruners import build_pruner

        return build_pruner(self.pruner)

    def draw(self, trial: Any) -> tuple[dict[str, Any], Component]:
        """Return the overrides and the experiment of a trial; a revived one may have a larger budget than its parameters give.

        Raises:
            UserError: when the space fails, or gives keys that do not hold.
        """
        overrides = {**self.overrides(trial), **TrialRecord.of(trial.user_attrs).changes}
        return overrides, self.experiment(overrides)

    def changes_since(self, stored: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> list[str]:
        """Describe how the declaration differs from a stored identity: a line for each difference."""
        return identity_changes(stored, self, extra)

    def overrides(self, trial: Any) -> dict[str, Any]:
        """Return the space at one trial: the dotted keys that it changes.

        Raises:
            UserError: when the space fails, or returns anything but a dictionary of dotted keys.
        """
        try:
            found = self.space(trial)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self._where()} failed: {type(error).__name__}: {error}") from error
        if not isinstance(found, Mapping):
            raise UserError(
                f"{self._where()} must return a dictionary of dotted keys, it returned {type(found).__name__}"
            )
        for key in found:
            if not isinstance(key, str):
                raise UserError(
                    f"{self._where()}: the key {key!r} is a {type(key).__name__}; keys are dotted names such as 'optimizer.lr'"
                )
        return dict(found)

    def experiment(self, overrides: Mapping[str, Any]) -> Component:
        """Return the base with overrides; raises `ConfigError` that names the key."""
        try:
            experiment = self.base.override(overrides)
            return experiment if self.settled is None else self.settled.complete(experiment)
        except ConfigError as error:
            raise ConfigError(f"{self._where()}: {error}", error.unknown) from None

    def identity(self) -> dict[str, Any]:
        """Return what makes it this study, as plain JSON: stored when the study is created, compared when it is
        resumed.
        """
        source = _source(self.space)
        return {
            "format": 1,
            "base": self.base.to_dict(),
            "metric": self.metric,
            "direction": self.direction,
            "sampler": self.sampler.to_dict(),
            "pruner": self.pruner.to_dict(),
            "space": {"digest": hashlib.sha256(source.encode()).hexdigest(), "source": source},
            **({} if self.settled is None else {RULES: self.settled.rules, TRAINING: self.settled.training}),
        }

    def _where(self) -> str:
        code = getattr(self.space, "__code__", None)
        place = f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""
        return f"study {self.name!r}: space{place}"


def load_study_file(path: Path) -> tuple[Study, str]:
    """Return the study that a Python file declares, and the file's text.

    Raises:
        UserError: when the file fails (naming file and line), or declares no study or several.
    """
    path = Path(path)
    study = declaration(path, Study)
    return study, path.read_text(encoding="utf-8")


def identity_changes(stored: Mapping[str, Any], study: Study, extra: Mapping[str, Any] | None = None) -> list[str]:
    """Return how a declaration differs from the identity that a study was created with: one line a difference, empty
    for none.
    """
    declared = {**study.identity(), **(extra or {})}
    lines: list[str] = []
    for key in sorted(declared.keys() & stored.keys()):
        old, new = stored[key], declared[key]
        if old == new:
            continue
        if key == "space":
            if old.get("digest") != new["digest"]:
                diff = difflib.unified_diff(
                    str(old.get("source", "")).splitlines(),
                    new["source"].splitlines(),
                    "stored",
                    "declared",
                    lineterm="",
                    n=1,
                )
                lines += ["space:", *(f"  {line}" for line in diff)]
        elif key in ("base", "sampler", "pruner"):
            lines += _component_changes(key, old, getattr(study, key))
        elif key == "data":
            lines.append(f"data: another corpus, or the same one prepared anew: digest {old[:12]} -> {new[:12]}")
        elif key == "metric_version":
            lines.append(
                f"metric_version: {old} -> {new}: the metrics are computed differently, values cannot be compared"
            )
        else:
            lines.append(f"{key}: {old!r} -> {new!r}")
    return lines


def _component_changes(key: str, stored: Any, declared: Component) -> list[str]:
    try:  # keys that this version added take their defaults, so that an upgrade is no change
        family = declared._family or type(declared)
        before = family.parse(stored)
    except UserError:
        return [f"{key}: {stored!r} -> {declared.to_dict()!r}"]
    if before.kind != declared.kind:
        return [f"{key}.kind: {before.kind!r} -> {declared.kind!r}"]
    return [f"{key}.{name}: {a!r} -> {b!r}" for name, (a, b) in before.diff(declared).items()]


def _source(function: Callable[..., Any]) -> str:
    """Return the text of a function without comments and layout, so that neither changes its digest."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return f"{getattr(function, '__qualname__', repr(type(function)))} {code.co_code.hex() if code else ''}"
    try:
        return ast.unparse(ast.parse(text))
    except SyntaxError:  # a lambda in the middle of an expression
        return text.strip()
