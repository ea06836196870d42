"""Make a run's model the one that a name stands for: NAME@champion, compared with the one that it replaces."""

from __future__ import annotations

import math
from dataclasses import dataclass

from audio_cls.core.errors import UserError
from audio_cls.metrics.base import figure_text, metric_of, plain_name
from audio_cls.runs.comparison import compare_runs
from audio_cls.runs.model_log import log_recorded_model
from audio_cls.tracking import RunInfo, Tracker
from audio_cls.tracking.registry import ALIAS, ModelVersion, check_alias, model_versions, register_model, valid_name

__all__ = ["Promotion", "promote"]


@dataclass(frozen=True)
class Promotion:
    """A model that a name stands for now.

    Attributes:
        version: the registered one.
        replaced: the version that had the alias before; None if none had, or it is the same run's.
        is_new: whether this run's model did not have the alias before.
        comparison: the figures of both, in a sentence; empty where none was replaced.
        worse: whether its figure is worse than that of the one it replaced, on the same clips.
    """

    version: ModelVersion
    replaced: ModelVersion | None
    is_new: bool
    comparison: str = ""
    worse: bool = False


def promote(tracker: Tracker, info: RunInfo, name: str | None = None, alias: str = ALIAS) -> Promotion:
    """Register a run's model (logged now where it was not) under a name, and move the alias to it.

    Args:
        name: of the registered model; the run's study, else its MLflow experiment, unless given. `/` and `:` become `-`.

    Raises:
        UserError: for a run that is not complete or labels no audio, an alias that MLflow does not take, or a server that cannot be asked.
    """
    check_alias(alias)
    name = valid_name(name or info.tags.get("study") or tracker.experiment_name(info.experiment_id))
    before = next((v for v in model_versions(tracker, name) if alias in v.aliases), None)
    log_recorded_model(tracker, info)
    comparison, worse = "", False
    if before is not None and before.run_id != info.run_id:
        comparison, worse = _compare(tracker, before, info)
    version = register_model(tracker, name, info.run_id, alias, _figure_tags(info), comparison)
    is_new = before is None or before.run_id != info.run_id
    return Promotion(version, before if is_new else None, is_new, comparison, worse)


def _figure_tags(info: RunInfo) -> dict[str, str]:
    """Return the tags of a version: the run and the validation figure that it was chosen by."""
    metric = plain_name(info.params.get("training.metric", ""))
    value = info.metrics.get(f"best/{metric}")
    return {"run": info.name, **({} if value is None else {"metric": metric, "validation": f"{value:.6g}"})}


def _compare(tracker: Tracker, before: ModelVersion, info: RunInfo) -> tuple[str, bool]:
    """Return how a run's figure stands beside that of the version before, and whether it is worse on the same clips."""
    metric = plain_name(info.params.get("training.metric", ""))
    try:
        beside = compare_runs(tracker.workspace, [before.run_id, info.run_id]).beside[0]
    except UserError as error:
        return f"not compared with version {before.version}: {error}", False
    if beside.why_not:
        return f"not compared with version {before.version}: {beside.why_not}", False
    pair = next((p for p in beside.figures if p.metric == metric), beside.figures[0])
    low, high, difference = (
        figure_text(v, pair.metric, signed=True)
        for v in (pair.interval.low, pair.interval.high, pair.interval.estimate)
    )
    interval = "" if math.isnan(pair.interval.low) else f" [{low}, {high}] (95 % over clips)"
    sign = -1 if metric_of(pair.metric).direction == "minimize" else 1
    sentence = (
        f"{pair.metric} on the same {beside.n_clips} validation clips: {figure_text(pair.run, pair.metric)}, version {before.version} had "
        f"{figure_text(pair.first, pair.metric)}; difference {difference}{interval}"
    )
    return sentence, sign * (pair.run - pair.first) < 0
