"""Pruning that says why, and that leaves revived trials alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, PercentilePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from audio_cls.queue.record import record_of
from audio_cls.study.samplers import StudyView

if TYPE_CHECKING:
    from audio_cls.study.declaration import PrunerConfig

__all__ = ["RevivablePruner", "build_pruner"]


def build_pruner(config: PrunerConfig) -> RevivablePruner:
    """Return the pruner of a study."""
    return RevivablePruner(config.make())


class RevivablePruner(BasePruner):
    """Another pruner, shown each configuration once, that never prunes a trial marked `no_prune`."""

    def __init__(self, base: BasePruner) -> None:
        self.base = base

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if record_of(trial).no_prune:
            return False
        view: Any = StudyView(study, empty=True)
        return self.base.prune(view, trial)

    def explain(self, study: optuna.Study, trial: FrozenTrial) -> str:
        """Return why a trial that `prune` would stop is stopped: `epoch 12: 0.41 below the median 0.55 of 9 trials`."""
        step = trial.last_step
        if step is None:
            return "before its first epoch"
        values = [v for v in trial.intermediate_values.values() if not math.isnan(v)]
        if not values:
            return f"epoch {step + 1}: no finite value so far"
        maximize = study.direction == StudyDirection.MAXIMIZE
        best = max(values) if maximize else min(values)
        if not isinstance(self.base, PercentilePruner):
            return f"epoch {step + 1}: {best:.4g} ({type(self.base).__name__})"
        others = [
            t.intermediate_values[step]
            for t in StudyView(study, empty=True).get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if step in t.intermediate_values
        ]
        share = self.base._percentile
        bound = float(np.nanpercentile(others, 100 - share if maximize else share)) if others else math.nan
        name = "median" if share == 50.0 else f"best {share:g} %, which begin at"
        side = "below" if maximize else "above"
        return f"epoch {step + 1}: {best:.4g} {side} the {name} {bound:.4g} of {len(others)} trials"
