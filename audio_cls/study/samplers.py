"""Samplers that depend on which configuration is asked for, not on when, and that see each configuration once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from audio_cls.queue.record import config_of, root_of

if TYPE_CHECKING:
    from audio_cls.study.declaration import SamplerConfig

__all__ = ["ConfigurationSeeded", "HideSuperseded", "StudyView", "build_sampler"]

STANDING = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


def build_sampler(config: SamplerConfig) -> BaseSampler:
    """Return the sampler of a study: seeded by configuration, blind to superseded trials."""
    return HideSuperseded(ConfigurationSeeded(config.seed, config.make))


class ConfigurationSeeded(BaseSampler):
    """Draws for configuration k from (seed, k) and the visible history.

    A sampler with one stream repeats itself after a restart and differs between workers; a stream for each trial number
    shifts when an interrupted trial is queued again. The configuration's index does neither.
    """

    def __init__(self, seed: int, make: Callable[[int], BaseSampler]) -> None:
        self._seed = seed
        self._make = make
        self._local = threading.local()

    def _inner(self, trial: FrozenTrial) -> BaseSampler:
        config = config_of(trial)
        # A trial without an index (asked for by somebody else) gets a stream that no index has.
        path = [self._seed, config] if config is not None else [self._seed, 2**32 - 1, trial.number]
        key = (trial.number, *path)
        if getattr(self._local, "key", None) != key:
            self._local.key = key
            self._local.inner = self._make(int(np.random.SeedSequence(path).generate_state(1)[0]))
        inner: BaseSampler = self._local.inner
        return inner

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._inner(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._inner(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._inner(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._inner(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._inner(trial).after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Nothing to do: the stream belongs to the configuration."""


class StudyView:
    """A study whose listings hold each configuration once, in the order in which configurations were first asked for.

    Of several attempts at one configuration the newest that stands (complete, pruned or running) is listed: a pruned trial
    that was revived would otherwise stay in TPE's bad density right on top of its revived twin. Finished trials without
    parameters are left out (unless `empty`), since one of them empties the joint search space for ever.
    """

    def __init__(self, study: optuna.Study, *, empty: bool = False) -> None:
        self.__dict__["_study"] = study
        self.__dict__["_empty"] = empty

    def __getattr__(self, key: str) -> Any:
        return getattr(self.__dict__["_study"], key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self.__dict__["_study"], key, value)

    def _once(self, trials: list[FrozenTrial], states: Container[TrialState] | None) -> list[FrozenTrial]:
        newest: dict[int, int] = {}
        for trial in trials:
            if trial.state in STANDING:
                root = root_of(trial)
                newest[root] = max(newest.get(root, -1), trial.number)
        kept = [
            t
            for t in trials
            if (states is None or t.state in states)
            and not (t.state in STANDING and newest[root_of(t)] != t.number)
            and (t.params or self.__dict__["_empty"] or t.state not in (TrialState.COMPLETE, TrialState.PRUNED))
        ]
        return sorted(kept, key=lambda t: (root_of(t), t.number))

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return self._once(self.__dict__["_study"].get_trials(deepcopy=deepcopy), states)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return self._once(self.__dict__["_study"]._get_trials(deepcopy=deepcopy, use_cache=use_cache), states)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()


class HideSuperseded(BaseSampler):
    """Shows a `StudyView` to another sampler."""

    def __init__(self, base: BaseSampler) -> None:
        self.base = base

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.base.before_trial(_view(study), trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.base.infer_relative_search_space(_view(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.base.sample_relative(_view(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.base.sample_independent(_view(study), trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self.base.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self.base.reseed_rng()


def _view(study: optuna.Study) -> Any:
    return StudyView(study)
