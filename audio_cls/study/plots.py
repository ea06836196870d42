"""Optuna's figures of a study. Their look is left to whoever shows them; nothing else here knows optuna.visualization."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FEWEST", "study_figures"]

FEWEST = 8
"""Complete trials, without which importances would be read out of noise."""

SLICES = 3  # parameters side by side at most: as many as a phone has room for


def study_figures(study: optuna.Study) -> dict[str, go.Figure]:
    """Return the figures of a study by name; one that the trials cannot give yet is left out.

    history, importances, slice 1, slice 2, ... (three parameters each), parallel, intermediate, timeline.

    Importances are PED-ANOVA's (Watanabe, Bansal, Hutter, IJCAI 2023): how much a parameter's distribution among the
    best tenth of the trials (quarter, of fewer than 40) differs from that among all. They and the parallel coordinates take the parameters that
    every complete trial has, and that vary: Optuna would otherwise leave out the trials without one.
    """
    from optuna import visualization

    from audio_cls.queue.work import IDENTITY

    trials = study.get_trials(deepcopy=False)
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    metric = study.user_attrs.get(IDENTITY, {}).get("metric", "value")
    figures: dict[str, go.Figure] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if complete:
            figures["history"] = visualization.plot_optimization_history(study, target_name=metric)
            shared, names = _parameters(complete)
            if len(complete) >= FEWEST and len(shared) > 1:
                evaluator = optuna.importance.PedAnovaImportanceEvaluator(
                    target_quantile=0.1 if len(complete) >= 40 else 0.25
                )
                figures["importances"] = visualization.plot_param_importances(
                    study, evaluator, shared, target_name=metric
                )
            rows = -(-len(names) // SLICES)
            for row in range(rows):  # as even as can be, in order
                part = names[row * len(names) // rows : (row + 1) * len(names) // rows]
                figures[f"slice {row + 1}"] = visualization.plot_slice(study, part, target_name=metric)
            if len(complete) > 1 and shared:
                figures["parallel"] = visualization.plot_parallel_coordinate(study, shared, target_name=metric)
        if any(t.intermediate_values for t in trials):
            figures["intermediate"] = visualization.plot_intermediate_values(study)
        if any(t.datetime_start for t in trials):
            figures["timeline"] = visualization.plot_timeline(study)
    return figures


def _parameters(complete: list[FrozenTrial]) -> tuple[list[str], list[str]]:
    """Of the parameters that vary over the complete trials: those that each of them has, and all, by name."""
    values: dict[str, list[object]] = {}
    for trial in complete:
        for name, value in trial.params.items():
            values.setdefault(name, []).append(value)
    varying = {name for name, seen in values.items() if len({repr(v) for v in seen}) > 1}
    return sorted(n for n in varying if len(values[n]) == len(complete)), sorted(varying)
