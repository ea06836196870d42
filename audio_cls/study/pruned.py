"""Which pruned trials are resumed, and how they are queued.

Optuna ends a pruned trial for good. Here it continues as a new trial with the same parameters, curve and attributes, exempt from
pruning, from the checkpoint of the attempt that was pruned; samplers and pruners see the two as one (`samplers.StudyView`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from audio_cls.core.errors import UserError
from audio_cls.queue.queue import Queue, Tally
from audio_cls.queue.record import attributes, config_of, is_finished, record_of, root_of

__all__ = ["Pruned", "choose", "queue_revival"]


@dataclass(frozen=True)
class Pruned:
    """A configuration that the pruner stopped. `latest` is its newest attempt: the pruned one, unless it was revived already.

    `attempts` are the numbers of all its trials, newest first; `best` the best value of the curve up to where it was pruned.
    """

    number: int
    config: int
    root: int
    attempts: tuple[int, ...]
    epochs: int
    best: float
    latest: FrozenTrial

    @property
    def revived(self) -> bool:
        return record_of(self.latest).revived

    @property
    def finished(self) -> bool:
        """Whether its revival came to its end."""
        return self.revived and is_finished(self.latest)


def choose(study: optuna.Study, top: int | None = None, numbers: Sequence[int] = ()) -> list[Pruned]:
    """Return the pruned configurations that are meant: these trials, or the `top` best, or all; best first.

    Those revived earlier count among the best, so that the same request means the same configurations when it is repeated.

    Raises:
        UserError: when one of `numbers` is no trial, or none that was pruned; or nothing was pruned at all.
    """
    everything = _pruned(study)
    name = study.study_name
    if not everything:
        raise UserError(f"study {name!r}: no trial was pruned, so there is nothing to revive")
    if not numbers:
        return everything if top is None else everything[:top]
    by_number = {number: pruned for pruned in everything for number in pruned.attempts}
    trials = {t.number: t for t in study.get_trials(deepcopy=False)}
    found = []
    for number in numbers:
        if number not in by_number:
            listed = ", ".join(str(n) for n in sorted(p.number for p in everything))
            nearest = min((p.number for p in everything), key=lambda n: abs(n - number))
            what = _what_it_is(trials[number]) if number in trials else f"there are trials 0 to {len(trials) - 1}"
            raise UserError(
                f"study {name!r}: trial {number} cannot be revived: {what}. Pruned trials: {listed}. "
                f"Did you mean {nearest}?"
            )
        if by_number[number] not in found:
            found.append(by_number[number])
    return found


def queue_revival(queue: Queue, pruned: Pruned, attrs: Mapping[str, Any]) -> int | None:
    """Queue a pruned trial, exempt from pruning; the number of its next attempt, None when another process was faster."""
    kept = attributes(pruned_epochs=pruned.epochs, pruned_reason=record_of(pruned.latest).reason)
    return queue.requeue(pruned.number, "revived", no_prune=True, attrs={**kept, **attrs})


def _pruned(study: optuna.Study) -> list[Pruned]:
    trials = study.get_trials(deepcopy=False)
    maximize = study.direction == StudyDirection.MAXIMIZE
    latest = {root_of(t): t for t in Tally.of(trials).latest.values()}
    stopped: dict[int, FrozenTrial] = {}
    attempts: dict[int, list[int]] = {}
    for trial in trials:
        attempts.setdefault(root_of(trial), []).insert(0, trial.number)
        if trial.state == TrialState.PRUNED and config_of(trial) is not None:
            stopped[root_of(trial)] = trial
    out = []
    for root, trial in stopped.items():
        newest = latest.get(root, trial)
        if newest.state != TrialState.PRUNED and not record_of(newest).revived:
            continue
        values = [v for v in trial.intermediate_values.values() if math.isfinite(v)]
        worst = -math.inf if maximize else math.inf
        best = (max(values) if maximize else min(values)) if values else worst
        config = config_of(trial)
        assert config is not None
        out.append(
            Pruned(
                trial.number, config, root, tuple(attempts[root]),
                len(trial.intermediate_values), best, newest,
            )
        )  # fmt: skip
    return sorted(out, key=lambda p: (-p.best if maximize else p.best, p.number))


def _what_it_is(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return f"it is complete ({trial.value:.4g})"
    if trial.state == TrialState.PRUNED:
        return "it was pruned, but not run by audio_cls: it has no checkpoint"
    if is_finished(trial):
        return f"it failed ({record_of(trial).reason or 'unknown reason'})"
    if trial.state == TrialState.FAIL:
        return "it was interrupted, and goes on with `study run`"
    return f"it is {trial.state.name.lower()}"
