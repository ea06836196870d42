"""Any runs side by side: what differs in configuration, data, code and surroundings, and in figures; paired where they pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from audio_cls.core.errors import UserError
from audio_cls.core.notices import say, table
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.bootstrap import Interval, clip_bootstrap, metric_function
from audio_cls.metrics.verdict import in_points
from audio_cls.runs.own_parts import recorded_experiment
from audio_cls.runs.preparation import open_corpus
from audio_cls.runs.scores import CellScores, read_cell_scores
from audio_cls.tracking import RunInfo, Tracker

__all__ = ["PairedFigure", "compare_command", "differences", "paired"]

SURROUNDINGS = (
    "data.digest", "split.digest", "init.digest", "order.digest", "metric.version", "env.git_commit", "env.git_dirty", "env.python",
    "env.packages", "env.host", "env.device", "device", "precision", "state", "reason", "test.openings", "findings",
)  # fmt: skip
FIGURES = ("best/", "last/", "baseline/", "final/", "test/", "mean/", "std/")


@dataclass(frozen=True)
class PairedFigure:
    """A metric of two runs on the same clips: difference run - first and its bootstrap interval over clips."""

    metric: str
    first: float
    run: float
    interval: Interval


def differences(infos: Sequence[RunInfo]) -> tuple[list[list[str]], list[list[str]], list[list[object]]]:
    """Rows (key, a value for each run) of the parameters, the tags and the figures in which runs differ; figures are all listed
    when they differ in nothing, and times always."""
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
    first: CellScores, other: CellScores, corpus: Corpus, metrics: Sequence[str] = ("accuracy", "macro_f1", "uar")
) -> list[PairedFigure]:
    """Figures of two runs on the same validation clips, groups resampled whole.

    Raises:
        UserError: when they were measured on different clips.
    """
    if sorted(first.clips) != sorted(other.clips):
        raise UserError("the runs were measured on different clips")
    order = {int(c): i for i, c in enumerate(other.clips)}
    aligned = other.values[[order[int(c)] for c in first.clips]]
    targets = corpus.targets[first.clips]
    groups = corpus.resampling_groups(first.clips)
    out = []
    for name in metrics:
        metric = metric_function(name, corpus.task)
        interval = clip_bootstrap(aligned, first.values, targets, metric, groups=groups)
        out.append(PairedFigure(name, metric(first.values, targets), metric(aligned, targets), interval))
    return out


def compare_command(workspace: Workspace, references: Sequence[str]) -> None:
    """Print what differs; the first run is what the others are compared with."""
    if len(references) < 2:
        raise UserError("compare takes two runs or more: ids, beginnings of ids, or names")
    tracker = Tracker(workspace)
    infos = [tracker.resolve(r) for r in references]
    for i, info in enumerate(infos):
        if info.run_id in {other.run_id for other in infos[:i]}:
            raise UserError(f"{references[i]!r} is the run {info.name} ({info.run_id[:8]}), which is there already")
    heads = [f"{info.name} ({info.run_id[:8]})" for info in infos]
    params, tags, figures = differences(infos)
    for title, rows, nothing in (
        ("configuration", params, "the configurations are equal"),
        ("data, code, surroundings", tags, "data, split, code and surroundings are equal"),
    ):
        if rows:
            table(f"{title}: what differs", ["key", *heads], rows)
        else:
            say(nothing)
    columns = ["figure", *heads, *(["difference"] if len(infos) == 2 else [])]
    if figures:
        table("figures", columns, figures, right=range(1, len(columns)))
    for info, head in zip(infos[1:], heads[1:], strict=True):
        why = _why_not_paired(infos[0], info)
        if why:
            say(f"{head} does not pair with {heads[0]}: {why}")
            continue
        _show_pairs(workspace, tracker, infos[0], info, heads[0], head)


def _why_not_paired(first: RunInfo, info: RunInfo) -> str:
    for run in (first, info):
        if run.state != "COMPLETE" or "split.digest" not in run.tags:
            return f"{run.name} is {run.state} and {'has no predictions' if 'split.digest' in run.tags else 'trained nothing itself'}"
    if first.tags.get("data.digest") != info.tags.get("data.digest"):
        return "other data"
    if first.tags.get("split.digest") != info.tags.get("split.digest"):
        return "another split"
    if first.tags.get("metric.version") != info.tags.get("metric.version"):
        return "another version of the metric code"
    return ""


def _show_pairs(
    workspace: Workspace, tracker: Tracker, first: RunInfo, info: RunInfo, head_first: str, head: str
) -> None:
    corpus = open_corpus(workspace, recorded_experiment(tracker, first).data.corpus)
    if corpus.digest != first.tags.get("data.digest"):
        say(f"{head}: not paired: the corpus {corpus.name!r} has changed since")
        return
    scores = [read_cell_scores(tracker, run.run_id, corpus, "best") for run in (first, info)]
    if scores[0] is None or scores[1] is None:
        say(f"{head}: not paired: a run without stored predictions ({head_first}, {head})")
        return
    rows = []
    for pair in paired(scores[0], scores[1], corpus):
        scale = 100.0 if in_points(pair.metric) else 1.0
        low, high = scale * pair.interval.low, scale * pair.interval.high
        interval = pair.interval.note if isnan(low) else f"[{low:+.1f}, {high:+.1f}]"
        rows.append([pair.metric, f"{scale * pair.first:.1f}", f"{scale * pair.run:.1f}", f"{scale * pair.interval.estimate:+.1f}", interval])  # fmt: skip
    n = len(scores[0].clips)
    say(f"{head} against {head_first}:")
    table(f"paired bootstrap over {n} clips (points)", ["metric", "first", "run", "difference", "95 %"], rows, right=range(1, 5))  # fmt: skip
    say(
        "one run each: the interval is of these two models on other clips; training again is not in it (audio-cls ablate run)"
    )
