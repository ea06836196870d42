"""`audio-cls ablate`: suites run, reported on, watched, listed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audio_cls.cli.console import say, table
from audio_cls.cli.options import (
    SET,
    STORAGE,
    SUBSET,
    TRACKING,
    WITH,
    WITH_FOR_WORKERS,
    Commands,
    queue_options,
    subset_assignments,
    subset_suffix,
    workspace_of,
)
from audio_cls.core.errors import UserError

if TYPE_CHECKING:
    from audio_cls.ablation.declaration import Ablation
    from audio_cls.ablation.filling import Filled
    from audio_cls.ablation.publishing import Publication
    from audio_cls.ablation.results import ArmResult, SuiteResult
    from audio_cls.queue.options import QueueOptions

FOLDS_SHOWN = 20


@click.group(cls=Commands)
def ablate() -> None:
    """Compare arms that differ in declared keys: plan, run, status, report, list."""


@ablate.command("plan")
@click.argument("file", type=click.Path(path_type=Path))
@queue_options
@click.option("--seeds", type=click.IntRange(1), default=None, help="How many, in place of the file's.")
@SET
@SUBSET
@WITH
@TRACKING
@click.pass_context
def ablate_plan(ctx: click.Context, file: Path, seeds: int | None, assignments: tuple[str, ...], subset: float | None, options: QueueOptions) -> None:  # fmt: skip
    """What the suite that FILE declares can detect, and what it costs, before it is trained; nothing is written.

    The spread is taken from the suite's own finished runs, else from earlier suites on this corpus, else guessed."""
    from audio_cls.ablation.planning import forecast
    from audio_cls.ablation.suite import open_suite
    from audio_cls.metrics.base import in_points
    from audio_cls.tracking import Tracker

    tracker = Tracker(workspace_of(ctx))
    declared, assignments = _declared(file, assignments, seeds, subset)
    suite = open_suite(declared, tracker, options, file, assignments)
    found = forecast(suite, workers=options.workers, storage=options.storage)
    for line in found.lines():
        say(line)
    columns, rows = found.rows()
    unit = ", points" if in_points(found.metric) else ""
    title = f"{found.name}: the difference in {found.metric}{unit} that is found four times in five, by seeds and folds"
    table(title, columns, rows, right=range(len(columns)))


def _declared(
    file: Path, assignments: tuple[str, ...], seeds: int | None, subset: float | None
) -> tuple[Ablation, tuple[str, ...]]:
    """Return the suite that a file declares, its base changed by --set and --subset, with so many seeds if a number is given; and all
    that was set.
    """
    from audio_cls.ablation.declaration import load_ablation

    ablation = load_ablation(file)
    assignments = (*assignments, *subset_assignments(subset))
    if suffix := subset_suffix(subset):
        ablation = replace(ablation, name=f"{ablation.name}{suffix}")
    if assignments:
        from audio_cls.core.config import parse_assignment

        ablation = replace(ablation, base=ablation.base.override(dict(parse_assignment(a) for a in assignments)))
    if seeds is not None:
        first = min(ablation.seeds)
        ablation = replace(ablation, seeds=range(first, first + seeds))
    return ablation, assignments


@ablate.command("run")
@click.argument("file", type=click.Path(path_type=Path))
@queue_options
@click.option(
    "--seeds", type=click.IntRange(1), default=None, help="How many, in place of the file's; more extend a suite."
)
@click.option("--retry-failed", "retry", is_flag=True, help="Train failed runs anew.")
@SET
@SUBSET
@WITH_FOR_WORKERS
@TRACKING
@click.pass_context
def ablate_run(ctx: click.Context, file: Path, seeds: int | None, retry: bool, subset: float | None, assignments: tuple[str, ...], parts: tuple[Path, ...], options: QueueOptions) -> None:  # fmt: skip
    """Run the suite that FILE declares (ABLATION), its base changed by --set; run again, it fills only what is missing."""
    from audio_cls.ablation.publishing import publish
    from audio_cls.ablation.running import run_suite
    from audio_cls.ablation.suite import open_suite
    from audio_cls.runs.resolve import announce
    from audio_cls.tracking import Tracker

    ablation, assignments = _declared(file, assignments, seeds, subset)
    tracker = Tracker(workspace_of(ctx))
    tracker.flush()
    suite = open_suite(ablation, tracker, options, file, assignments)
    if suite.resolved is not None:
        announce(suite.resolved, suite.corpus)
    table(f"{ablation.name}: the contract", ["what", "is"], [list(term) for term in suite.plan.terms])
    outcome = run_suite(replace(suite, parts=parts), options, retry=retry)
    _show(publish(outcome.suite, outcome.results))
    for failure in (s.record.failure for s in outcome.filled.states if s.state == "FAILED" and s.record.failure):
        say(f"a whole traceback is in {failure}", err=True)
    refuse_unfinished(outcome.filled)


def refuse_unfinished(filled: Filled) -> None:
    """End a command some of whose runs were refused.

    Raises:
        UserError: naming the reasons.
    """
    if filled.left:
        reasons = "; ".join(filled.refused)
        raise UserError(f"{filled.left} of {len(filled.states)} runs were refused: {reasons}")


@ablate.command("report")
@click.argument("name_or_file")
@STORAGE
@WITH
@TRACKING
@click.pass_context
def ablate_report(ctx: click.Context, name_or_file: str, storage: str | None) -> None:
    """What a suite says so far: arms, differences, verdicts; the HTML page; MLflow's views.

    A suite that was run with --set is named, not given by its file."""
    from audio_cls.ablation.publishing import report_suite
    from audio_cls.tracking import Tracker

    tracker = Tracker(workspace_of(ctx))
    tracker.flush()
    _show(report_suite(name_or_file, tracker, storage))


@ablate.command("status")
@click.argument("name")
@STORAGE
@WITH
@click.pass_context
def ablate_status(ctx: click.Context, name: str, storage: str | None) -> None:
    """The runs of a suite, cross-validation or confirmation: finished, running, waiting, failed, and what is left.

    NAME is a suite, or folds:... or confirmation:... as `ablate list` shows them."""
    from audio_cls.ablation.stored import cells_of, remarks_of
    from audio_cls.queue.status import summary

    workspace = workspace_of(ctx)
    status, cells = cells_of(name, workspace, storage)
    plain = status.metric.rpartition("/")[2]
    rows = [
        [
            c.params["arm"], c.params["seed"], c.params["fold"] or "", c.state.lower(), c.record.last.get(plain), c.value,
            c.record.epochs, _why(c),
        ]
        for c in cells
    ]  # fmt: skip
    columns = ["arm", "seed", "fold", "state", "last epoch", "best epoch", "epochs", ""]
    table(f"{status.name}: runs, {status.metric}", columns, rows)
    for line in (*remarks_of(status.name, workspace, storage), *summary(status)):
        say(line)


def _why(cell: Any) -> str:
    """Say what must be known of a run besides its state."""
    if cell.record.adopted_from:
        return f"taken over from {cell.record.adopted_from.get('study')}"
    return str(cell.record.reason)


@ablate.command("list")
@STORAGE
@WITH
@TRACKING
@click.pass_context
def ablate_list(ctx: click.Context, storage: str | None) -> None:
    """The suites of this workspace and how far they are; cross-validations and confirmations below them."""
    from audio_cls.ablation.publishing import list_suites
    from audio_cls.ablation.stored import list_others
    from audio_cls.tracking import Tracker

    tracker = Tracker(workspace_of(ctx))
    suites, others = list_suites(tracker, storage), list_others(tracker.workspace, storage)
    if not suites and not others:
        say("no suites yet. Start one with: audio-cls ablate run FILE")
        return
    if suites:
        rows = [[s.name, s.metric, s.state, s.words] for s in suites]
        table("suites", ["suite", "metric", "state", "verdicts"], rows)
    if others:
        rows = [[s.name, s.metric, f"{s.finished} of {s.total} runs"] for s in others]
        table("cross-validations and confirmations", ["name", "metric", "finished"], rows)


# -- printing ------------------------------------------------------------------------------------------------------


def _show(shown: Publication) -> None:
    """Print the tables of a suite, its verdicts, and where more of it is."""
    from audio_cls.ablation.details import captions, main_details
    from audio_cls.metrics.published import published_lines

    first, ablation = shown.results[0], shown.suite.ablation
    for result in shown.results:
        _print_arms(result)
    _print_folds(first)
    for what, text in first.terms:
        if what == "groups":
            say(f"note: {text}")
    say(f"{ablation.name}: {first.state}; {first.metric} of the {ablation.select} epoch, against {ablation.reference}")
    for line in (*captions(first), *first.adopted, *first.findings):
        say(line)
    for line in published_lines(ablation.published):
        say(line)
    for arm in first.arms:
        if arm.verdict is not None:
            say(f"  {arm.name}: {arm.verdict.text}")
            for line in main_details(arm, first):
                say(f"    {line}")
    for arm in first.arms:
        for words, reason in arm.failed:
            say(f"FAILED {words}: {reason}")
    head = "CROSS-VALIDATION" if shown.test and shown.test.kind == "cross-validation" else "TEST SPLIT"
    for line in shown.test.lines() if shown.test else ():
        say(f"{head} {line}")
    for line in (*first.openings, *([shown.history] if shown.history else ())):
        say(f"TEST SPLIT {line}")
    workspace = shown.suite.workspace
    if workspace.read_only:
        path = workspace.reports / f"suite-{ablation.name}.html"
        say(f"no page: the workspace is read-only (it would be {path})")
    elif shown.page is not None:
        say(f"report: {shown.page}")
    if shown.links:
        say("MLflow UI: audio-cls ui, then")
        for title, link in shown.links.items():
            say(f"  {title}: {link}")


def _print_arms(result: SuiteResult) -> None:
    """Print the table of arms on one metric."""
    from audio_cls.metrics.base import in_points, number_text

    points = in_points(result.metric)

    def number(value: float, signed: bool = False) -> str:
        if isnan(value):
            return ""
        return number_text(value, points, signed=signed)

    rows: list[list[str]] = []
    dim: list[int] = []
    for arm in result.arms:
        c, verdict = arm.comparison, arm.verdict
        spread = "" if isnan(arm.mean.mean) else f"{number(arm.mean.mean)} ± {number(arm.mean.sd) or '?'}"
        row = [arm.name, f"{arm.done}/{arm.planned}", spread]
        if c is None or verdict is None:
            rows += [[*row, "", "", "reference"], *_without_collapsed(arm, number)]
            _add_published(rows, dim, arm.name, result)
            continue
        interval = "" if isnan(verdict.low) else f" [{number(verdict.low)}, {number(verdict.high)}]"
        p = "" if isnan(verdict.p) else "< 0.001" if verdict.p < 0.001 else f"{verdict.p:.2g}"
        rows += [[*row, number(c.mean, signed=True) + interval, p, verdict.word], *_without_collapsed(arm, number)]
        _add_published(rows, dim, arm.name, result)
    plain = result.metric.rpartition("/")[2]
    if plain in result.baseline:
        rows.append(["(baseline)", "", number(result.baseline[plain]), "", "", "learned nothing"])
    unit = " (points)" if points else ""
    columns = ["arm", "runs", "mean ± sd", "difference [interval]", "p Holm", "verdict"]
    table(f"{result.ablation.name}: {result.metric}{unit}", columns, rows, right=(1, 2, 3, 4), dim=dim)


def _add_published(rows: list[list[str]], dim: list[int], arm: str, result: SuiteResult) -> None:
    """Add a greyed row for each published figure of an arm and metric."""
    for item in result.ablation.published:
        if item.arm == arm and item.is_of(result.metric):
            dim.append(len(rows))
            rows.append(["  published", "", item.number, "", "", f"on {item.on}" if item.on else ""])


def _without_collapsed(arm: ArmResult, number: Callable[[float], str]) -> list[list[str]]:
    """Return the row of an arm's mean without its collapsed runs; none where no run has collapsed."""
    if arm.collapsed is None:
        return []
    mean, found = arm.collapsed.without, arm.collapsed
    spread = "" if isnan(mean.mean) else f"{number(mean.mean)} ± {number(mean.sd) or '?'}"
    return [[f"  without {len(found.why)} collapsed", str(found.of - len(found.why)), spread, "", "", ""]]


def _print_folds(result: SuiteResult) -> None:
    """Print the table with a row for each fold, the first `FOLDS_SHOWN`; nothing for a suite on one fold."""
    from audio_cls.ablation.results import fold_rows
    from audio_cls.metrics.verdict import in_points

    columns, rows = fold_rows(result)
    if len(rows) > 1 and result.done:
        unit = " (points)" if in_points(result.metric) else ""
        table(f"{result.ablation.name}: {result.metric}{unit} by fold, mean over seeds", columns, rows[:FOLDS_SHOWN])
        if len(rows) > FOLDS_SHOWN:
            say(f"... and {len(rows) - FOLDS_SHOWN} more folds: on the page")
