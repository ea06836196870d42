"""The test split of a suite (or of a cross-validation), opened once for all its runs: figures of each arm with intervals,
paired differences from the reference, and a record that every later report shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from audio_cls.ablation.declaration import Cell
from audio_cls.ablation.predictions import CellScores, pooled_by_seed
from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.base import uses_decisions
from audio_cls.metrics.baselines import judge
from audio_cls.metrics.bootstrap import Interval, bootstrap_interval, is_counted, metric_function
from audio_cls.metrics.classification import check_metric, evaluate
from audio_cls.metrics.paired import compare
from audio_cls.metrics.verdict import Verdict, in_points, verdicts
from audio_cls.runs.evaluation import Scored, score_run
from audio_cls.runs.opened_clips import ClipHistory, clip_history, clips_to_test, named
from audio_cls.runs.test_split import (
    Opened,
    clip_ids,
    now_and_who,
    record_opening,
    refuse_again,
    refuse_opened_clips,
    test_scores_csv,
)
from audio_cls.training.predictions import corpus_predictions

if TYPE_CHECKING:
    from audio_cls.ablation.running import Suite
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import RunInfo, Tracker

__all__ = ["ARTIFACT", "Group", "TestResult", "of_parent", "of_suite", "open_group", "read_result"]

ARTIFACT = "test.json"
RESAMPLES = 1000


@dataclass(frozen=True)
class Group:
    """Runs that are opened together. runs: arm -> (seed, fold) -> run. parent: the run of the whole. chosen: by whom the arms
    were made and on which validation metric they are judged. folder: of a run's checkpoint, by arm and cell."""

    name: str
    parent: RunInfo
    runs: Mapping[str, Mapping[Cell, RunInfo]]
    metrics: tuple[str, ...]
    weights: Literal["best", "last"]
    chosen: str
    reference: str | None = None
    margin: float | None = None
    arm_runs: Mapping[str, str] = field(default_factory=dict)
    folder: Callable[[str, Cell], Path | None] = lambda arm, cell: None

    @property
    def what(self) -> str:
        """How its openings are told from those of others: a suite by its name, anything else by its run."""
        return self.name if self.parent.tags.get("kind") == "suite" else named(self.parent)


@dataclass
class TestResult:
    """What an opening found; kept as `test.json` with the run of the whole. Figures are None where they are not finite.

    arms: arm -> metric -> {value, low, high}: mean over seeds of the figure over all test clips, bootstrap over clips.
    differences: arm -> metric -> {value, low, high, p, text}: paired by (seed, fold) with the reference, like the suite's
    verdicts on validation clips. remarks: what a reader of the figures must know of the split.
    baseline: metric -> the figure of a model that learned nothing, over all test clips.
    findings: arm -> what is wrong with its predictions on test clips, in sentences.
    """

    __test__ = False  # no test case of pytest's

    name: str
    openings: int
    first: str
    last: str
    who: str
    chosen: str
    clips: int
    reference: str | None
    metrics: list[str]
    arms: dict[str, dict[str, dict[str, Any]]]
    differences: dict[str, dict[str, dict[str, Any]]]
    remarks: list[str] = field(default_factory=list)
    baseline: dict[str, float] = field(default_factory=dict)
    findings: dict[str, list[str]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The opening in words: how often, who chose what, and the first metric's figures."""
        metric = self.metrics[0]
        out = [
            f"opened {self.openings} time(s), first {self.first}, last {self.last} by {self.who}: {self.clips} test clips. "
            f"Chosen: {self.chosen}"
        ]
        for arm, figures in self.arms.items():
            words = f"{arm}: test {metric.rpartition('/')[2]} {_words(figures[metric], metric)}"
            if arm in self.differences:
                words += f"; {self.differences[arm][metric]['text']}"
            out.append(words)
        if metric in self.baseline:
            figure = {"value": self.baseline[metric], "low": None}
            out.append(f"a model that learned nothing: test {metric.rpartition('/')[2]} {_words(figure, metric)}")
        out += [f"{arm}: {line}" for arm, lines in self.findings.items() for line in lines]
        return out + [f"note: {remark}" for remark in self.remarks]

    def rows(self) -> list[list[Any]]:
        """For a table: arm, metric, value, low, high, the baseline's figure, then the difference from the reference with its
        interval and p."""
        return [
            [arm, metric.rpartition("/")[2], *(figures[metric][k] for k in ("value", "low", "high")), self.baseline.get(metric),
             *(self.differences.get(arm, {}).get(metric, {}).get(k) for k in ("value", "low", "high", "p"))]
            for metric in self.metrics
            for arm, figures in self.arms.items()
        ]  # fmt: skip


def of_suite(suite: Suite) -> Group:
    """A suite's runs.

    Raises:
        UserError: while runs are left: what the test split shows must not reach what is still to be trained.
    """
    from audio_cls.ablation.contract import check_records
    from audio_cls.ablation.record import grid_items, read_records
    from audio_cls.runs.grid import item_folder

    ablation = suite.ablation
    records = read_records(ablation, suite.plan, suite.corpus, suite.workspace, suite.tracker)
    check_records(ablation, suite.plan, records)
    left = [r.words for r in records if not r.done]
    if left or not suite.state.run_id:
        raise UserError(
            f"suite {ablation.name!r}: {len(left)} of {len(records)} runs are left ({left[0]}, ...): run it to its end "
            "first. Once its test split has been opened it cannot grow"
        )
    items = grid_items(ablation, suite.plan, suite.corpus, suite.state.arms)
    folders = {(r.arm, r.cell): item_folder(suite.workspace, item.key) for r, item in zip(records, items, strict=True)}
    runs: dict[str, dict[Cell, RunInfo]] = {arm: {} for arm in ablation.arms}
    known = {r.run_id: r for r in suite.tracker.runs(None, f"params.`ablation.suite` = '{ablation.name}'")}
    for record in records:
        if record.state == "COMPLETE" and record.run_id in known:
            runs[record.arm][record.cell] = known[record.run_id]
    epoch = "the last epoch" if ablation.select == "last" else "the best epoch"
    return Group(
        f"suite {ablation.name}",
        suite.tracker.resolve(suite.state.run_id),
        runs,
        tuple(ablation.metrics),
        ablation.select,
        f"{len(ablation.arms)} arms declared beforehand, each judged by {ablation.metrics[0]} of {epoch} on validation clips",
        ablation.reference,
        ablation.margin,
        suite.state.arms,
        lambda arm, cell: folders[arm, cell],
    )


def of_parent(tracker: Tracker, parent: RunInfo) -> Group:
    """The runs below a cross-validation or a confirmation, by their best epochs' weights.

    Raises:
        UserError: when none below it is complete, or some are under way.
    """
    below = tracker.runs(None, f"tags.mlflow.parentRunId = '{parent.run_id}'")
    left = [r.name for r in below if r.state in ("RUNNING", "INTERRUPTED")]
    if left or not below:
        raise UserError(
            f"{parent.name}: {len(left)} of {len(below)} runs below it are not finished: run it to its end first"
        )
    runs: dict[str, dict[Cell, RunInfo]] = {}
    for run in below:
        if run.state == "COMPLETE":
            trial = run.params.get("confirmed.trial")
            arm = f"trial {trial}" if trial else parent.name
            runs.setdefault(arm, {})[int(run.tags.get("seed", 0)), int(run.tags.get("fold", 0))] = run
    some = next((run for cells in runs.values() for run in cells.values()), None)
    if some is None:
        raise UserError(f"{parent.name}: no run below it is COMPLETE")
    metric = some.params.get("training.metric", "val/accuracy")
    study = parent.tags.get("study")
    chosen = (
        f"{len(runs)} best configurations of the study {study!r}" if study else "one configuration, given by its user"
    )
    return Group(
        parent.name,
        parent,
        runs,
        tuple(dict.fromkeys([metric, "val/accuracy", "val/macro_f1"])),
        "best",
        f"{chosen}; the epoch of each run by {metric} on its validation clips",
    )


def open_group(
    runtime: Runtime, group: Group, *, again: bool, on_run: Callable[[int, int, str], None] | None = None
) -> TestResult:
    """Open the test split of all runs of a group: compute, record with every run, its arm and the whole, then return.

    Raises:
        UserError: when it was opened before, of the whole or of one run, or its clips were for another run, unless `again`; for
            a run that cannot be scored.
    """
    tracker = runtime.tracker
    refuse_again(group.parent, again)
    everything = [(arm, cell, run) for arm, cells in group.runs.items() for cell, run in sorted(cells.items())]
    for _, _, run in everything:
        refuse_again(run, again)
    refuse_opened_clips(group_history(runtime, group).but(group.what), group.name, again)
    scored: dict[str, dict[Cell, Scored]] = {arm: {} for arm in group.runs}
    for done, (arm, cell, run) in enumerate(everything):
        scored[arm][cell] = score_run(runtime, run, "test", group.weights, group.folder(arm, cell))
        if on_run:
            on_run(done + 1, len(everything), run.name)
    metrics = [m for m in group.metrics if m.rpartition("/")[2] != "loss"]
    if not metrics:
        raise UserError(
            f"{group.name}: judged by {', '.join(group.metrics)} only, which probabilities do not determine"
        )

    corpus = next(iter(next(iter(scored.values())).values())).corpus
    figures = {arm: {m: as_dict(pooled_interval(cells, corpus, m)) for m in metrics} for arm, cells in scored.items()}
    differences = _differences(group, scored, metrics)
    when, who = now_and_who()
    opened = Opened(group.what, group.chosen, when, who)
    for arm, cells in scored.items():
        for cell, one in cells.items():
            own = {m.rpartition("/")[2]: _of_one(one, corpus, m) for m in metrics}
            record_opening(tracker, group.runs[arm][cell], opened, own, clip_ids(one), test_scores_csv(one))
        if arm in group.arm_runs and not group.arm_runs[arm].startswith("local-"):
            arm_run = tracker.reopen(group.arm_runs[arm])
            arm_run.final(
                {f"test/{k.rpartition('/')[2]}{end}": v for k, f in figures[arm].items() for end, v in _ends(f)}
            )
            arm_run.close()
    shown = sorted({clip for cells in scored.values() for one in cells.values() for clip in clip_ids(one)})
    count = record_opening(tracker, group.parent, opened, {}, shown)
    result = TestResult(
        name=group.name,
        openings=count,
        first=group.parent.tags.get("test.first_opened") or when,
        last=when,
        who=who,
        chosen=group.chosen,
        clips=len(shown),
        reference=group.reference,
        metrics=metrics,
        arms=figures,
        differences=differences,
        remarks=sorted({remark for cells in scored.values() for one in cells.values() for remark in one.remarks}),
        baseline=pooled_baseline(next(iter(scored.values())), corpus, metrics),
        findings={arm: list(found) for arm, cells in scored.items() if (found := _findings(cells, corpus, metrics[0]))},
    )
    parent = tracker.reopen(group.parent.run_id)
    parent.artifact_text(ARTIFACT, json.dumps(vars(result), indent=2))
    parent.close()
    return result


def group_history(runtime: Runtime, group: Group) -> ClipHistory:
    """The openings so far of the test clips of a group's runs."""
    some = {run.tags.get("split.digest", run.run_id): run for cells in group.runs.values() for run in cells.values()}
    clips = {clip for run in some.values() for clip in clips_to_test(runtime, run)}
    return clip_history(runtime.tracker, clips, next(iter(some.values())))


def pooled_baseline(cells: Mapping[Cell, Scored], corpus: Corpus, metrics: Sequence[str]) -> dict[str, float]:
    """The figures of a model that learned nothing over all test clips, computed as an arm's are."""
    seed = min(cells)[0]
    runs = {cell: one.baseline_run() for cell, one in cells.items() if cell[0] == seed}
    figures = {}
    for metric in metrics:
        value = evaluate_pooled(runs, corpus, metric)
        if isfinite(value):
            figures[metric] = value
    return figures


def evaluate_pooled(cells: Mapping[Cell, Scored], corpus: Corpus, metric: str) -> float:
    """A metric over the clips of some runs together, each called by its own run's thresholds."""
    plain = metric.rpartition("/")[2]
    values = np.concatenate(
        [decided(one) if uses_decisions(metric) else one.predictions.scores for one in cells.values()]
    )
    targets = np.concatenate([one.predictions.targets for one in cells.values()])
    return evaluate(values, targets, corpus.task).overall[plain]


def _findings(cells: Mapping[Cell, Scored], corpus: Corpus, metric: str) -> tuple[str, ...]:
    """What is wrong with the predictions of an arm's runs together."""
    parts = list(cells.values())
    rows = np.concatenate([one.clips for one in parts])
    predictions = corpus_predictions(corpus, rows, np.concatenate([one.predictions.scores for one in parts]))
    baseline = replace(predictions, scores=np.concatenate([one.baseline.scores for one in parts]))
    found = judge(predictions, baseline, metric, clips="test predictions")
    return found.findings


def read_result(tracker: Tracker, run_id: str | None) -> TestResult | None:
    """What the last opening of a suite or cross-validation found; None where there was none."""
    if not run_id or run_id.startswith("local-"):
        return None
    try:
        if not tracker.resolve(run_id).tags.get("test.openings"):
            return None
        return TestResult(**json.loads(tracker.download(run_id, ARTIFACT).read_text(encoding="utf-8")))
    except UserError:
        return None


def pooled_interval(cells: Mapping[Cell, Scored], corpus: Corpus, metric: str) -> Interval:
    """An arm's figure over all test clips, each predicted by the run that kept it for the test, the mean over seeds, and its
    bootstrap over clips or groups; without an interval where no seed has all its folds."""
    parts = {
        cell: CellScores(one.clips, decided(one) if uses_decisions(metric) else one.predictions.scores)
        for cell, one in cells.items()
    }
    seeds = list(pooled_by_seed(parts, sorted({fold for _, fold in parts})).values())
    if not seeds or any(not np.array_equal(s.clips, seeds[0].clips) for s in seeds):
        return Interval(nan, nan, nan, 0.95, 0, 0, "no seed has run all its folds on the same clips")
    clips = seeds[0].clips
    return bootstrap_interval(
        np.stack([s.values for s in seeds]),
        corpus.targets[clips],
        metric_function(metric, corpus.task),
        corpus.resampling_groups(clips),
        RESAMPLES,
    )


def decided(one: Scored) -> NDArray[Any]:
    """Scores moved so that each label's own threshold lies at 0.5: runs with thresholds of their own can be pooled."""
    return (
        one.predictions.scores
        if one.predictions.thresholds is None
        else one.predictions.scores - one.predictions.thresholds + 0.5
    )


def as_dict(interval: Interval) -> dict[str, Any]:
    """Figures for a JSON file; None where they are not finite."""
    named = {"value": interval.estimate, "low": interval.low, "high": interval.high}
    return {key: float(value) if isfinite(value) else None for key, value in named.items()}


def _differences(
    group: Group, scored: Mapping[str, Mapping[Cell, Scored]], metrics: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    if group.reference is None or not scored.get(group.reference):
        return {}
    some = next(iter(scored[group.reference].values()))
    ratio = fmean(len(s.clips) for s in scored[group.reference].values()) / len(some.split.train)
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for metric in metrics:
        plain = metric.rpartition("/")[2]
        values = {
            arm: {cell: float(one.predictions.evaluation.overall[plain]) for cell, one in cells.items()}
            for arm, cells in scored.items()
        }
        found = {
            arm: compare(
                values[arm], values[group.reference], test_to_train=ratio, direction=check_metric(metric), arm=arm,
                reference=group.reference,
            )
            for arm in scored
            if arm != group.reference
        }  # fmt: skip
        judged = verdicts(found, points=in_points(metric), margin=group.margin)
        for arm, c in found.items():
            numbers = {"value": c.mean, "low": c.low, "high": c.high, "p": judged[arm].p}
            out.setdefault(arm, {})[metric] = {
                **{k: float(v) if isfinite(v) else None for k, v in numbers.items()},
                "text": _without_hint(judged[arm]),
            }
    return out


def _without_hint(verdict: Verdict) -> str:
    """A verdict without the word on further runs: there will be none once the test split is open."""
    head, found, _ = verdict.text.partition(f": {verdict.word}")
    return head + found


def _of_one(one: Scored, corpus: Corpus, metric: str) -> Interval:
    """A single run's figure, with an interval where it is cheap."""
    plain = metric.rpartition("/")[2]
    if not is_counted(metric):
        return Interval(one.predictions.evaluation.overall[plain], nan, nan, 0.95, len(one.clips), 0)
    groups = corpus.resampling_groups(one.clips)
    return bootstrap_interval(
        decided(one), one.predictions.targets, metric_function(metric, corpus.task), groups, RESAMPLES
    )


def _ends(figures: Mapping[str, Any]) -> list[tuple[str, float]]:
    names = (("", "value"), ("_low", "low"), ("_high", "high"))
    return [(end, figures[key]) for end, key in names if figures[key] is not None]


def _words(figures: Mapping[str, Any], metric: str) -> str:
    scale, digits = (100, 1) if in_points(metric) else (1, 3)
    if figures["value"] is None:
        return "unknown"
    text = f"{scale * figures['value']:.{digits}f}"
    if figures["low"] is None:
        return text
    return f"{text} [{scale * figures['low']:.{digits}f}, {scale * figures['high']:.{digits}f}]"
