"""Compare runs: differences in configuration, data, code, environment and figures; paired statistics where runs pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.core.errors import UserError, choose
from audio_cls.core.workspace import Workspace
from audio_cls.data.remarks import OVERFIT
from audio_cls.metrics.base import plain_name
from audio_cls.metrics.bootstrap import Interval, clip_bootstrap, metric_function
from audio_cls.metrics.predictions import Predictions
from audio_cls.runs.own_parts import recorded_experiment
from audio_cls.runs.preparation import open_corpus
from audio_cls.runs.scores import read_predictions
from audio_cls.tracking import RunInfo, Tracker

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["Beside", "PairedFigure", "RunComparison", "compare_runs", "differences", "paired"]

SURROUNDINGS = (
    "data.digest", "split.digest", "init.digest", "order.digest", "metric.version", "env.git_commit", "env.git_dirty", "env.python",
    "env.packages", "env.host", "env.device", "device", "precision", "state", "reason", "test.openings", "thresholds",
    "training.corrections", "background.digest", "accumulate.loss", "findings", "collapsed", OVERFIT,
)  # fmt: skip
FIGURES = ("best/", "last/", "baseline/", "final/", "test/", "cross_validation/", "nested/", "mean/", "std/")


@dataclass(frozen=True)
class PairedFigure:
    """A metric of two runs on the same clips: difference run - first and its bootstrap interval over clips."""

    metric: str
    first: float
    run: float
    interval: Interval


@dataclass(frozen=True)
class Beside:
    """A run beside the first one: their paired figures on `n_clips` clips, or why they do not pair."""

    figures: tuple[PairedFigure, ...] = ()
    n_clips: int = 0
    why_not: str = ""


@dataclass(frozen=True)
class RunComparison:
    """Runs side by side. configuration, surroundings: rows (key, a value for each run) of what differs. figures: rows (key, a
    value for each run, and of two runs the difference). beside: each run but the first. tracker: has the runs' curves."""

    runs: tuple[RunInfo, ...]
    configuration: list[list[str]]
    surroundings: list[list[str]]
    figures: list[list[object]]
    beside: tuple[Beside, ...]
    tracker: Tracker = field(repr=False, compare=False)

    @property
    def heads(self) -> list[str]:
        """Name and short id of each run."""
        return [f"{run.name} ({run.run_id[:8]})" for run in self.runs]

    def table(self) -> pd.DataFrame:
        """Return a row for each setting, fact of the surroundings and figure that differs, a column for each run."""
        import pandas as pd

        rows: list[list[Any]] = [*self.configuration, *self.surroundings, *self.figures]
        columns = [*self.heads, *(["difference"] if len(self.runs) == 2 else [])]
        padded = [[*row[1:], *[None] * (len(columns) - len(row) + 1)] for row in rows]
        return pd.DataFrame(padded, index=pd.Index([row[0] for row in rows], name="what"), columns=columns)

    def paired_table(self) -> pd.DataFrame:
        """Return a row for each run but the first and each metric that pairs with it: both figures, difference,
        95 % interval.
        """
        import pandas as pd

        columns = ["run", "metric", "first", "value", "difference", "low", "high"]
        rows = [
            (head, f.metric, f.first, f.run, f.interval.estimate, f.interval.low, f.interval.high)
            for head, beside in zip(self.heads[1:], self.beside, strict=True)
            for f in beside.figures
        ]
        return pd.DataFrame(rows, columns=columns).set_index(["run", "metric"])

    def figure(self, name: str) -> go.Figure:
        """Return a figure of all runs together as a Plotly figure.

        Args:
            name: one of `figure_names()`, such as "curves_macro_f1" or "loss_gap".

        Raises:
            UserError: for an unknown name.
        """
        return choose(self._all_figures, name, f"figure {name!r} of {len(self.runs)} runs")

    def figure_names(self) -> list[str]:
        """Return the names that `figure` takes."""
        return list(self._all_figures)

    def report(self, html: Path | str | None = None) -> Path:
        """Write the page of the runs: curves, figures, what differs. Returns the file, `reports/compare-NAME-NAME.html` unless given."""
        from audio_cls.runs.comparison_page import comparison_page
        from audio_cls.runs.page_data import page_path, write_page

        name = "-".join(["compare", *(run.name for run in self.runs[:3])])
        path = page_path(self.tracker.workspace, name, Path(html) if html else None)
        return write_page(self.tracker, path, comparison_page(self, self.tracker)).path

    @cached_property
    def _all_figures(self) -> Mapping[str, go.Figure]:
        from audio_cls.runs.comparison_page import comparison_figures

        return comparison_figures(self, self.tracker)

    def _repr_html_(self) -> str:
        return self.table().to_html(na_rep="") + self.paired_table().to_html(float_format=lambda v: f"{v:+.4f}")


def differences(infos: Sequence[RunInfo]) -> tuple[list[list[str]], list[list[str]], list[list[object]]]:
    """Return rows (key, a value for each run) of the parameters, the tags and the figures in which runs differ;
    figures are all listed when they differ in nothing, and times always.
    """
    params = _rows([i.params for i in infos], sorted({k for i in infos for k in i.params}))
    tags = _rows([i.tags for i in infos], SURROUNDINGS)
    keys = sorted({k for i in infos for k in i.metrics if k.startswith(FIGURES)})
    figures: list[list[object]] = []
    for key in keys:
        values = [i.metrics.get(key) for i in infos]
        spread = [v for v in values if v is not None]
        row: list[object] = [key, *values]
        if len(infos) == 2:
            row.append(spread[1] - spread[0] if len(spread) == 2 else None)
        figures.append(row)
    return params, tags, figures


def _rows(maps: Sequence[dict[str, str]], keys: Sequence[str]) -> list[list[str]]:
    out = []
    for key in keys:
        values = [m.get(key, "") for m in maps]
        if len(set(values)) > 1:
            out.append([key, *(_short(key, v) for v in values)])
    return out


def _short(key: str, value: str) -> str:
    return value[:12] if key.endswith(("digest", "commit")) else value if len(value) < 60 else f"{value[:57]}..."


def paired(
    first: Predictions, other: Predictions, metrics: Sequence[str] = ("accuracy", "macro_f1", "uar")
) -> list[PairedFigure]:
    """Return figures of two runs on the same validation clips, groups resampled whole; labels are called from 0.5 on.

    Raises:
        UserError: when they were measured on different clips.
    """
    if sorted(first.clips) != sorted(other.clips):
        raise UserError("the runs were measured on different clips")
    order = {clip: i for i, clip in enumerate(other.clips)}
    aligned = other.scores[[order[clip] for clip in first.clips]]
    out = []
    for name in metrics:
        metric = metric_function(name, first.task, first.families)
        interval = clip_bootstrap(aligned, first.scores, first.targets, metric, groups=first.groups)
        figures = metric(first.scores, first.targets), metric(aligned, first.targets)
        out.append(PairedFigure(name, *figures, interval))
    return out


def compare_runs(workspace: Workspace, references: Sequence[str]) -> RunComparison:
    """Compare recorded runs; the first one is what the others are compared with.

    Args:
        references: ids, beginnings of ids, or names; two or more.

    Raises:
        UserError: for fewer than two runs, one that is not found, or the same one twice.
    """
    if len(references) < 2:
        raise UserError("compare takes two runs or more: ids, beginnings of ids, or names")
    tracker = Tracker(workspace)
    infos = [tracker.resolve(r) for r in references]
    for i, info in enumerate(infos):
        if info.run_id in {other.run_id for other in infos[:i]}:
            raise UserError(f"{references[i]!r} is the run {info.name} ({info.run_id[:8]}), which is there already")
    params, tags, figures = differences(infos)
    beside = tuple(_beside(workspace, tracker, infos[0], info) for info in infos[1:])
    return RunComparison(tuple(infos), params, tags, figures, beside, tracker)


def _why_not_paired(first: RunInfo, info: RunInfo) -> str:
    for run in (first, info):
        if run.tags.get(OVERFIT):
            return f"{run.name} is a {run.tags[OVERFIT]}"
        if run.state != "COMPLETE" or "split.digest" not in run.tags:
            return f"{run.name} is {run.state} and {'has no predictions' if 'split.digest' in run.tags else 'trained nothing itself'}"
    if first.tags.get("data.digest") != info.tags.get("data.digest"):
        return "other data"
    if first.tags.get("split.digest") != info.tags.get("split.digest"):
        return "another split"
    if first.tags.get("metric.version") != info.tags.get("metric.version"):
        return "another version of the metric code"
    return ""


def _beside(workspace: Workspace, tracker: Tracker, first: RunInfo, info: RunInfo) -> Beside:
    if why := _why_not_paired(first, info):
        return Beside(why_not=why)
    experiment = recorded_experiment(tracker, first)
    corpus = open_corpus(workspace, experiment.data)
    if corpus.digest != first.tags.get("data.digest"):
        return Beside(why_not=f"the corpus {corpus.name!r} has changed since")
    one, other = (read_predictions(tracker, run.run_id, corpus) for run in (first, info))
    if one is None or other is None:
        return Beside(why_not=f"{(first if one is None else info).name} has no stored predictions")
    chosen_by = plain_name(experiment.training.metric)
    metrics = dict.fromkeys(["accuracy", "macro_f1", "uar", *([chosen_by] if chosen_by != "loss" else [])])
    return Beside(tuple(paired(one, other, list(metrics))), len(one))
