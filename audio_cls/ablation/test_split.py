"""The test split of a suite (or of a cross-validation), opened once for all its runs: figures of each arm with intervals,
paired differences from the reference, and a record that every later report shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from audio_cls.ablation.declaration import Cell
from audio_cls.ablation.test_figures import (
    as_dict,
    differences,
    figure_of_run,
    findings_of,
    named_ends,
    pooled_baseline,
    pooled_interval,
)
from audio_cls.ablation.test_groups import Group
from audio_cls.core.errors import UserError
from audio_cls.metrics.verdict import in_points
from audio_cls.runs.evaluation import Scored, score_run
from audio_cls.runs.opened_clips import ClipHistory, clip_history, clips_to_test
from audio_cls.runs.test_split import (
    Opened,
    clip_ids,
    now_and_who,
    record_opening,
    refuse_again,
    refuse_opened_clips,
    test_scores_csv,
)

if TYPE_CHECKING:
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import Tracker

__all__ = ["ARTIFACT", "TestResult", "open_group", "read_result"]

ARTIFACT = "test.json"


@dataclass
class TestResult:
    """What an opening found; kept as `test.json` with the run of the whole. Figures are None if they are not finite.

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
        """Return the opening in words: how often, who chose what, and the first metric's figures."""
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
    compared = differences(scored, metrics, group.reference, group.margin)
    when, who = now_and_who()
    opened = Opened(group.what, group.chosen, when, who)
    for arm, cells in scored.items():
        for cell, one in cells.items():
            own = {m.rpartition("/")[2]: figure_of_run(one, corpus, m) for m in metrics}
            record_opening(tracker, group.runs[arm][cell], opened, own, clip_ids(one), test_scores_csv(one))
        if arm in group.arm_runs and not group.arm_runs[arm].startswith("local-"):
            arm_run = tracker.reopen(group.arm_runs[arm])
            arm_run.final(
                {f"test/{k.rpartition('/')[2]}{end}": v for k, f in figures[arm].items() for end, v in named_ends(f)}
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
        differences=compared,
        remarks=sorted({remark for cells in scored.values() for one in cells.values() for remark in one.remarks}),
        baseline=pooled_baseline(next(iter(scored.values())), corpus, metrics),
        findings={
            arm: list(found) for arm, cells in scored.items() if (found := findings_of(cells, corpus, metrics[0]))
        },
    )
    parent = tracker.reopen(group.parent.run_id)
    parent.artifact_text(ARTIFACT, json.dumps(vars(result), indent=2))
    parent.close()
    return result


def group_history(runtime: Runtime, group: Group) -> ClipHistory:
    """Return the openings so far of the test clips of a group's runs."""
    some = {run.tags.get("split.digest", run.run_id): run for cells in group.runs.values() for run in cells.values()}
    clips = {clip for run in some.values() for clip in clips_to_test(runtime, run)}
    return clip_history(runtime.tracker, clips, next(iter(some.values())))


def read_result(tracker: Tracker, run_id: str | None) -> TestResult | None:
    """Return what the last opening of a suite or cross-validation found; None if there was none."""
    if not run_id or run_id.startswith("local-"):
        return None
    try:
        if not tracker.resolve(run_id).tags.get("test.openings"):
            return None
        return TestResult(**json.loads(tracker.download(run_id, ARTIFACT).read_text(encoding="utf-8")))
    except UserError:
        return None


def _words(figures: Mapping[str, Any], metric: str) -> str:
    scale, digits = (100, 1) if in_points(metric) else (1, 3)
    if figures["value"] is None:
        return "unknown"
    text = f"{scale * figures['value']:.{digits}f}"
    if figures["low"] is None:
        return text
    return f"{text} [{scale * figures['low']:.{digits}f}, {scale * figures['high']:.{digits}f}]"
