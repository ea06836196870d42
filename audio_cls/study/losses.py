"""What a search space makes of the loss: refused where it changes what `val/loss` means, warned of where it weighs classes twice."""

from __future__ import annotations

from typing import Any

import optuna

from audio_cls.core.config import ConfigError
from audio_cls.core.errors import UserError
from audio_cls.experiment import Experiment
from audio_cls.runs.loss_settings import COMPARABLE, is_loss, other_losses
from audio_cls.runs.weighting import draws_warning
from audio_cls.study.declaration import Study

__all__ = ["check_losses", "space_warning"]

DRAWS = 40  # random ones, before each choice of each parameter is drawn once


def check_losses(study: Study) -> None:
    """Refuse a study that is judged by the loss while its space changes it. The space is tried with random draws and every choice.

    Raises:
        ConfigError: naming the settings and the metric to judge by.
    """
    if not is_loss(study.metric):
        return
    found = other_losses({f"draw {n}": e for n, e in enumerate(_drawn(study))})
    if found:
        raise ConfigError(
            f"study {study.name!r} is judged by {study.metric}, and its space changes the loss ({', '.join(found)}): each trial would be "
            f"measured by its own. Judge by {COMPARABLE}: metric and training.metric of the base, direction='minimize'"
        )


def space_warning(study: Study) -> str:
    """Return a warning where draws of the space weigh classes twice, which no other warning sees; else ""."""
    return draws_warning(_drawn(study), study.base) if isinstance(study.base, Experiment) else ""


def _drawn(study: Study) -> list[Experiment]:
    """Return experiments of the space: random ones, and one with each value of each choice. Draws that do not hold are left out."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        trials = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        found = [_draw(study, trials.ask()) for _ in range(DRAWS)]
        choices = {
            (name, choice)
            for trial in trials.get_trials(deepcopy=False)
            for name, of in trial.distributions.items()
            if isinstance(of, optuna.distributions.CategoricalDistribution)
            for choice in of.choices
        }
        for name, choice in sorted(choices, key=repr):
            trials.enqueue_trial({name: choice})
            found.append(_draw(study, trials.ask()))
    finally:
        optuna.logging.set_verbosity(before)
    return [experiment for experiment in found if experiment is not None]


def _draw(study: Study, trial: Any) -> Experiment | None:
    try:
        experiment = study.experiment(study.overrides(trial))
    except UserError:  # told when a trial is run
        return None
    return experiment if isinstance(experiment, Experiment) else None
