"""What `evaluate --test` prints: the test clips of a run, or of all runs of a suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.cli.console import progress, say, table
from audio_cls.core.stopping import Watch

if TYPE_CHECKING:
    from audio_cls.ablation.nested_choice import NestedChoice
    from audio_cls.ablation.test_groups import Group
    from audio_cls.ablation.test_split import TestResult
    from audio_cls.runs.evaluation import Scored
    from audio_cls.runs.preparation import Runtime
    from audio_cls.runs.test_split import OpenedTestSplit

__all__ = ["open_and_show", "show_classes", "show_opening"]


def show_opening(found: OpenedTestSplit) -> None:
    """Print the test clips of one run."""
    from audio_cls.metrics.baselines import baseline_name, finite_figures
    from audio_cls.runs.test_split import NOT_UNBIASED, interval_words

    scored, opened = found.scored, found.opened
    baseline = finite_figures(scored.baseline)
    for line in scored.judgement().lines:
        say(line)
    table(
        f"{scored.run.name}: {len(scored.clips)} {'test' if found.kind == 'test' else 'held-out'} clips",
        ["metric", found.kind, f"95 % interval over {found.drawn}", baseline_name(scored.corpus.task)],
        [[name, i.estimate, interval_words(i), baseline.get(name)] for name, i in found.figures.items()],
        right=(1, 3),
    )
    show_classes(scored)
    if found.overlap.sentence():
        say(f"note: {found.overlap.sentence()}")
    say(f"chosen: {opened.chosen}")
    say(f"the test split of this run has been opened {found.count} time(s); recorded ({opened.who}, {opened.when})")
    if found.others is not None:
        say(f"{found.others.sentence()}. {NOT_UNBIASED}")


def show_classes(scored: Scored) -> None:
    """Print the figures of each class, and what a reader must know of the split."""
    from audio_cls.report.tables import class_figures

    per_class = scored.predictions.evaluation.per_class
    rows = [
        [c, *(f"{per_class[k][i]:.3f}" if k != "support" else int(per_class[k][i]) for k in per_class)]
        for i, c in enumerate(scored.corpus.classes)
    ]
    names = class_figures(per_class, bool(scored.predictions.tuned_on))
    table("by class", ["class", *names], rows, right=range(1, len(per_class) + 1))
    if note := scored.predictions.threshold_note:
        say(note)
    for remark in scored.remarks:
        say(f"note: {remark}")


def open_and_show(runtime: Runtime, group: Group, *, again: bool, nested: bool) -> None:
    """Open the test split of a suite, cross-validation or confirmation, and print what it shows."""
    from audio_cls.ablation.test_split import group_history, open_group
    from audio_cls.metrics.baselines import baseline_name
    from audio_cls.runs.test_split import NOT_UNBIASED

    with progress(f"{group.name}: test") as tell:
        runtime.watch = Watch(tell=tell.phase)
        found = open_group(runtime, group, again=again, nested=nested, on_run=tell)
    runtime.tracker.flush()
    task = next(iter(runtime.corpora.values())).task
    for arm, lines in found.findings.items():
        for line in lines:
            say(f"{arm}: {line}")
    _show_arms(found, baseline_name(task))
    for line in ([found.overlap] if found.overlap else []) + found.remarks:
        say(f"note: {line}")
    if found.nested is not None:
        _show_nested(found.nested)
    for line in found.ways_to_a_test():
        say(line)
    say(f"chosen: {found.chosen}")
    say(
        f"the test split of {found.name} has been opened {found.openings} time(s); recorded ({found.who}, {found.last})"
    )
    history = group_history(runtime, group)
    if history.but(group.what).openings:
        say(f"{history.sentence()}. {NOT_UNBIASED}")


def _show_arms(found: TestResult, baseline: str) -> None:
    """Print a table for each metric: the arms, and a model that learned nothing."""
    for metric in found.metrics:
        rows = []
        for arm, figures in found.arms.items():
            of = figures[metric]
            mine = found.differences.get(arm, {}).get(metric)
            interval = "" if of["low"] is None else f"[{of['low']:.3f}, {of['high']:.3f}]"
            rows.append(
                [arm, of["value"], interval, mine["text"] if mine else "the reference" if found.reference else ""]
            )
        if metric in found.baseline:
            rows.append([baseline, found.baseline[metric], "", ""])
        plain = metric.rpartition("/")[2]
        columns = [
            "arm",
            plain if found.kind == "test" else f"{found.kind} {plain}",
            "95 % over clips",
            f"against {found.reference}" if found.reference else "",
        ]
        table(f"{found.name}: {found.clips} {found.clip_words}", columns, rows)


def _show_nested(nested: NestedChoice) -> None:
    columns, rows = nested.rows()
    table("nested choice: the arm chosen inside each fold", columns, rows, right=range(2, len(columns)))
    for line in nested.lines():
        say(line)
