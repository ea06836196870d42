"""The test split of a suite (or of a cross-validation), opened once for all its runs: figures of each arm with intervals,
paired differences from the reference, and a record that every later report shows. Where runs of the suite validate on these clips,
as with every fold in turn, the figures are called cross-validation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from audio_cls.ablation.declaration import Cell
from audio_cls.ablation.nested_choice import Choice, NestedChoice, choose_arms, interval_text, nested_choice
from audio_cls.ablation.test_figures import (
    as_dict,
    differences,
    figure_of_run,
    findings_of,
    named_ends,
    pooled_baseline,
    pooled_interval,
    with_tuned,
)
from audio_cls.ablation.test_groups import Group
from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.base import plain_name
from audio_cls.runs.evaluation import Scored, score_run
from audio_cls.runs.opened_clips import ClipHistory, clip_history, clips_to_test
from audio_cls.runs.split_overlap import PREFIXES, FigureKind, Overlap, recorded_overlap
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
KEEP_A_FOLD = "data.split.test_fold=FOLD of the splits cross_validation, k_fold and leave_one_group_out"


@dataclass
class TestResult:
    """What an opening found; kept as `test.json` with the run of the whole. Figures are None if they are not finite.

    arms: arm -> metric -> {value, low, high}: mean over seeds of the figure over all test clips, bootstrap over clips.
    differences: arm -> metric -> {value, low, high, p, text}: paired by (seed, fold) with the reference, like the suite's
    verdicts on validation clips. remarks: what a reader of the figures must know of the split.
    baseline: metric -> the figure of a model that learned nothing, over all test clips.
    findings: arm -> what is wrong with its predictions on test clips, in sentences.
    kind: "test", or "cross-validation" where runs of the suite validate on these clips; overlap: that in a sentence, else empty.
    nested: the figures of arms chosen inside each fold, where they were asked for.
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
    kind: FigureKind = "test"
    overlap: str = ""
    nested: NestedChoice | None = None

    def lines(self) -> list[str]:
        """Return the opening in words: how often, who chose what, and the first metric's figures."""
        metric = self.metrics[0]
        plain = plain_name(metric)
        out = [
            f"opened {self.openings} time(s), first {self.first}, last {self.last} by {self.who}: {self.clips} {self.clip_words}. "
            f"Chosen: {self.chosen}"
        ]
        out += [self.overlap, *self.ways_to_a_test()] if self.overlap else []
        out += self.nested.lines() if self.nested else []
        for arm, figures in self.arms.items():
            words = f"{arm}: {self.kind} {plain} {interval_text(figures[metric], metric)}"
            if arm in self.differences:
                words += f"; {self.differences[arm][metric]['text']}"
            out.append(words)
        if metric in self.baseline:
            figure = {"value": self.baseline[metric], "low": None, "high": None}
            out.append(f"a model that learned nothing: {self.kind} {plain} {interval_text(figure, metric)}")
        out += [f"{arm}: {line}" for arm, lines in self.findings.items() for line in lines]
        return out + [f"note: {remark}" for remark in self.remarks]

    def ways_to_a_test(self) -> list[str]:
        """Return what gives figures of clips that chose nothing, for figures of clips that did."""
        if self.kind == "test" or self.nested is not None:
            return []
        name = self.name.removeprefix("suite ")
        nested = (
            f"audio-cls evaluate --test {name} --nested --again chooses an arm inside each fold, or "
            if len(self.arms) > 1
            else ""
        )
        return [f"for figures of clips that chose nothing: {nested}keep a fold that no run validates on, {KEEP_A_FOLD}"]

    @property
    def clip_words(self) -> str:
        """What the clips are called: test clips, or those held out in a fold."""
        return "test clips" if self.kind == "test" else "clips held out in some fold"

    def rows(self) -> list[list[Any]]:
        """For a table: arm, metric, value, low, high, the baseline's figure, then the difference from the reference with its
        interval and p."""
        return [
            [arm, plain_name(metric), *(figures[metric][k] for k in ("value", "low", "high")), self.baseline.get(metric),
             *(self.differences.get(arm, {}).get(metric, {}).get(k) for k in ("value", "low", "high", "p"))]
            for metric in self.metrics
            for arm, figures in self.arms.items()
        ]  # fmt: skip


def open_group(
    runtime: Runtime,
    group: Group,
    *,
    again: bool,
    nested: bool = False,
    on_run: Callable[[int, int, str], None] | None = None,
) -> TestResult:
    """Open the test split of all runs of a group: compute, record with every run, its arm and the whole, then return.

    Args:
        nested: choose an arm inside each fold as well, see `nested_choice`.

    Raises:
        UserError: when it was opened before, of the whole or of one run, or its clips were for another run, unless `again`; for
            a run that cannot be scored; for `nested` where no test clip validates, or nothing can be chosen.
    """
    metrics = [m for m in group.metrics if plain_name(m) != "loss"]
    if not metrics:
        raise UserError(
            f"{group.name}: judged by {', '.join(group.metrics)} only, which probabilities do not determine"
        )
    runs = [run for _, _, run in group.cells]
    overlap = recorded_overlap(runtime, runs, [*runs, *group.choosing])
    choice = _choice(group, overlap) if nested else None
    refuse_again(group.parent, again)
    for run in runs:
        refuse_again(run, again)
    refuse_opened_clips(group_history(runtime, group).but(group.what), group.name, again)
    scored: dict[str, dict[Cell, Scored]] = {arm: {} for arm in group.runs}
    for done, (arm, cell, run) in enumerate(group.cells):
        scored[arm][cell] = score_run(runtime, run, "test", group.weights, group.folder(arm, cell))
        if on_run:
            on_run(done + 1, len(group.cells), run.name)
    corpus = next(iter(next(iter(scored.values())).values())).corpus
    found = None
    if choice is not None:
        found = replace(nested_choice(group, choice, scored, corpus, metrics), remarks=_not_nested(runtime, group))
    return _record(runtime, group, scored, corpus, with_tuned(metrics, corpus.task), overlap, found)


def _choice(group: Group, overlap: Overlap) -> Choice:
    """Return which arms nested choice takes.

    Raises:
        UserError: where no test clip validates, so that --test alone is a test; where nothing can be chosen.
    """
    if overlap.kind == "test":
        raise UserError(
            f"{group.name}: no run validates on its {overlap.n_test} test clips, so that its figures on them are a test already: "
            "leave --nested out"
        )
    return choose_arms(group)


def _not_nested(runtime: Runtime, group: Group) -> list[str]:
    """Return what nested choice does not undo: the arms themselves may come from a search on clips that test here."""
    searched = recorded_overlap(runtime, [run for _, _, run in group.cells], group.choosing)
    if not searched.n_validating:
        return []
    return [
        f"the arms themselves come from a search that was judged by {searched.n_validating} of these {searched.n_test} clips: nested "
        "choice covers the choice among the arms, not that search"
    ]


def _remarks(one: Scored) -> list[str]:
    """Return what a reader of a run's test figures must know: of the split, and how thresholds came about."""
    note = one.predictions.threshold_note
    return [*one.remarks, note[0].lower() + note[1:].rstrip(".")] if note else list(one.remarks)


def _record(
    runtime: Runtime,
    group: Group,
    scored: Mapping[str, Mapping[Cell, Scored]],
    corpus: Corpus,
    metrics: list[str],
    overlap: Overlap,
    nested: NestedChoice | None,
) -> TestResult:
    """Record an opening with every run, its arm and the whole."""
    tracker = runtime.tracker
    figures = {arm: {m: as_dict(pooled_interval(cells, corpus, m)) for m in metrics} for arm, cells in scored.items()}
    when, who = now_and_who()
    opened = Opened(group.what, group.chosen, when, who, overlap.kind)
    for arm, cells in scored.items():
        for cell, one in cells.items():
            own = {plain_name(m): figure_of_run(one, corpus, m) for m in metrics}
            record_opening(tracker, group.runs[arm][cell], opened, own, clip_ids(one), test_scores_csv(one))
        if arm in group.arm_runs and not group.arm_runs[arm].startswith("local-"):
            arm_run = tracker.reopen(group.arm_runs[arm])
            arm_run.final(_metrics(PREFIXES[overlap.kind], figures[arm]))
            arm_run.close()
    shown = sorted({clip for cells in scored.values() for one in cells.values() for clip in clip_ids(one)})
    before = read_result(tracker, group.parent.run_id)
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
        differences=differences(scored, metrics, group.reference, group.margin),
        remarks=sorted({r for cells in scored.values() for one in cells.values() for r in _remarks(one)}),
        baseline=pooled_baseline(next(iter(scored.values())), corpus, metrics),
        findings={
            arm: list(found)
            for arm, cells in scored.items()
            if (found := findings_of(cells, corpus, metrics[0], overlap.kind))
        },
        kind=overlap.kind,
        overlap=overlap.sentence(),
        nested=nested or (before.nested if before else None),
    )
    parent = tracker.reopen(group.parent.run_id)
    parent.tags({"test.overlap": result.overlap})
    if nested is not None:
        parent.final(_metrics("nested/", nested.figures))
    parent.artifact_text(ARTIFACT, json.dumps(asdict(result), indent=2))
    parent.close()
    return result


def _metrics(prefix: str, figures: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return figures with their intervals as MLflow keeps them: `test/accuracy`, `test/accuracy_low`, `test/accuracy_high`."""
    return {f"{prefix}{plain_name(k)}{end}": v for k, f in figures.items() for end, v in named_ends(f)}


def group_history(runtime: Runtime, group: Group) -> ClipHistory:
    """Return the openings so far of the test clips of a group's runs."""
    some = {run.tags.get("split.digest", run.run_id): run for cells in group.runs.values() for run in cells.values()}
    clips = {clip for run in some.values() for clip in clips_to_test(runtime, run)}
    return clip_history(runtime.tracker, clips, next(iter(some.values())))


def read_result(
    tracker: Tracker, run_id: str | None, overlap: Callable[[], Overlap] | None = None
) -> TestResult | None:
    """Return what the last opening of a suite or cross-validation found; None if there was none.

    Args:
        overlap: called for an opening that an earlier version recorded, which called every figure on test clips a test.
    """
    if not run_id or run_id.startswith("local-"):
        return None
    try:
        if not tracker.resolve(run_id).tags.get("test.openings"):
            return None
        stored = json.loads(tracker.download(run_id, ARTIFACT).read_text(encoding="utf-8"))
    except UserError:
        return None
    if stored.get("nested"):
        stored["nested"] = NestedChoice(**stored["nested"])
    if "kind" not in stored and overlap is not None:
        found = overlap()
        stored |= {"kind": found.kind, "overlap": found.sentence()}
    return TestResult(**stored)
