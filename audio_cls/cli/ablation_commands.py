"""What the `ablate` commands do: a suite checked, run, reported on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from audio_cls.cli.commands import say_resolved
from audio_cls.cli.console import progress, say, table
from audio_cls.core.config import parse_assignment
from audio_cls.core.errors import UserError
from audio_cls.core.stopping import GRACE_SECONDS
from audio_cls.core.workspace import Workspace
from audio_cls.runs.grid import RunState, item_folder

if TYPE_CHECKING:
    from audio_cls.ablation.results import SuiteResult
    from audio_cls.ablation.running import Suite
    from audio_cls.tracking import Run

FOLDS_SHOWN = 20  # in the terminal

__all__ = ["list_command", "report_command", "run_command"]


def run_command(
    workspace: Workspace,
    file: Path,
    *,
    workers: int,
    seeds: int | None,
    retry: bool,
    device: str,
    assignments: Sequence[str] = (),
    grace: float = GRACE_SECONDS,
) -> None:
    """Fill the holes of a suite's grid, then report. `assignments` change keys of the suite's base."""
    from audio_cls.ablation.declaration import load_ablation
    from audio_cls.ablation.running import fill, log_result, open_suite, results, start_suite
    from audio_cls.ablation.tuning import tune_arms
    from audio_cls.tracking import Tracker

    ablation = load_ablation(file)
    if assignments:
        ablation = replace(ablation, base=ablation.base.override(dict(parse_assignment(a) for a in assignments)))
    if seeds is not None:
        first = min(ablation.seeds)
        ablation = replace(ablation, seeds=range(first, first + seeds))
    tracker = Tracker(workspace)
    tracker.flush()
    suite = open_suite(ablation, workspace, tracker, file, device)
    if suite.resolved is not None:
        say_resolved(suite.resolved, suite.corpus)
    table(f"{ablation.name}: the contract", ["what", "is"], [list(term) for term in suite.plan.terms])
    if suite.ablation.tune is not None:
        suite = tune_arms(suite, file, device=device, grace=grace)
    with workspace.lock(f"suite-{ablation.name}"):
        parent, arms = start_suite(suite, file)
    if retry:
        _set_failed_aside(suite)
    total = len(suite.plan.cells)
    epochs = sum(p.experiment.training.epochs for p in suite.plan.cells)
    with progress(ablation.name) as tell:
        told = [-1]

        def poll(states: list[RunState], phases: str) -> None:
            done = sum(s.done for s in states)
            if done < total or told[0] < total:
                words = f"runs, {sum(s.epoch + 1 for s in states)}/{epochs} epochs"
                tell(done, total, ", ".join(part for part in (words, phases) if part))
            told[0] = done

        states = fill(suite, file, workers=workers, device=device, on_poll=poll, grace=grace)
    left = sum(not s.done for s in states)
    if left and not any(s.state == "REFUSED" for s in states):  # whoever asked to leave waits for no statistics
        _leave(suite, parent, arms, states)
    summed = results(suite)
    for result in summed:
        log_result(result, arms)
    for arm in summed[0].arms:
        arms[arm.name].finish("COMPLETE" if arm.done == arm.planned else "INTERRUPTED")
    parent.final({"final/runs": float(total - left), "final/failed": sum(s.state == "FAILED" for s in states)})
    show(suite, summed)
    parent.finish("INTERRUPTED" if left else "COMPLETE", f"{total - left} of {total} runs" if left else "")
    tracker.flush()
    for failed in (s.failure for s in states if s.state == "FAILED" and s.failure):
        say(f"a whole traceback is in {failed}", err=True)
    for refused in sorted({s.reason for s in states if s.state == "REFUSED"}):
        say(f"refused: {refused}", err=True)
    if left:
        say(f"{left} of {total} runs are left; the same command goes on with them")
        raise SystemExit(130)


def _leave(suite: Suite, parent: Run, arms: Mapping[str, Run], states: Sequence[RunState]) -> NoReturn:
    """End the suite's runs as far as they are, and say how many cells are left. `states` are the cells', in the plan's order."""
    cells = suite.plan.cells
    unfinished = [cell.arm for cell, state in zip(cells, states, strict=True) if not state.done]
    for name, run in arms.items():
        run.finish("INTERRUPTED" if name in unfinished else "COMPLETE")
    left, total = len(unfinished), len(cells)
    parent.finish("INTERRUPTED", f"{total - left} of {total} runs")
    suite.tracker.flush()
    say(f"{left} of {total} runs are left; the same command goes on with them")
    if left < total:
        say(f"what there is so far: audio-cls ablate report {suite.ablation.name}")
    raise SystemExit(130)


def report_command(workspace: Workspace, reference: str) -> None:
    """Report on a suite as it stands."""
    from audio_cls.ablation.declaration import load_ablation
    from audio_cls.ablation.record import join_suite
    from audio_cls.ablation.running import log_result, reopen_suite, results
    from audio_cls.ablation.settling import settle
    from audio_cls.tracking import Tracker

    tracker = Tracker(workspace)
    tracker.flush()
    if reference.endswith(".py"):
        ablation = load_ablation(Path(reference))
        suite = reopen_suite(ablation.name, workspace, tracker)
        ablation, _ = settle(ablation, suite.corpus, suite.state.data_rules)
        join_suite(ablation, workspace, suite.corpus, Path(reference))  # refuses a declaration that has changed
    else:
        suite = reopen_suite(reference, workspace, tracker)
    summed = results(suite)
    if tracker.read_only:
        show(suite, summed)
        return
    runs = {arm: tracker.reopen(run_id) for arm, run_id in suite.state.arms.items() if not run_id.startswith("local-")}
    for result in summed:
        log_result(result, runs)
    show(suite, summed)


def list_command(workspace: Workspace) -> None:
    """The suites of a workspace, and how far they are."""
    from audio_cls.ablation.record import suite_names
    from audio_cls.ablation.running import reopen_suite, results
    from audio_cls.tracking import Tracker

    tracker, rows = Tracker(workspace), []
    for name in suite_names(workspace):
        try:
            result = results(reopen_suite(name, workspace, tracker))[0]
            words = [f"{a.name}: {a.verdict.word}" for a in result.arms if a.verdict is not None]
            rows.append([name, result.metric, result.state, ", ".join(words)])
        except UserError as error:
            rows.append([name, "", "refused", str(error)])
    if not rows:
        say("no suites yet. Start one with: audio-cls ablate run FILE")
        return
    table("suites", ["suite", "metric", "state", "verdicts"], rows)


def show(suite: Suite, summed: Sequence[SuiteResult]) -> None:
    """Print the tables, write the page, renew the views."""
    from audio_cls.ablation.page import suite_report
    from audio_cls.ablation.page_data import audit_of_best, build_report, more_lines
    from audio_cls.ablation.results import bootstrap_arms
    from audio_cls.ablation.running import ascending
    from audio_cls.ablation.test_split import read_result
    from audio_cls.metrics.verdict import in_points

    first, ablation, tracker = summed[0], suite.ablation, suite.tracker
    for result in summed:
        print_arms(result)
    print_folds(first)
    for what, text in first.terms:
        if what == "groups":
            say(f"note: {text}")
    scores = first.scores
    intervals = bootstrap_arms(first, scores, suite.corpus)
    say(f"{ablation.name}: {first.state}; {first.metric} of the {ablation.select} epoch, against {ablation.reference}")
    for line in first.findings:
        say(line)
    for arm in first.arms:
        if arm.verdict is not None:
            say(f"  {arm.name}: {arm.verdict.text}")
            for line in more_lines(arm, intervals.get(arm.name), in_points(first.metric)):
                say(f"    {line}")
    for arm in first.arms:
        for words, reason in arm.failed:
            say(f"FAILED {words}: {reason}")
    test = read_result(tracker, suite.state.run_id)
    history = suite_history(suite, first)
    for line in (*(test.lines() if test else ()), *first.openings, *([history] if history else ())):
        say(f"TEST SPLIT {line}")
    path = suite.workspace.reports / f"suite-{ablation.name}.html"
    if suite.workspace.read_only:
        say(f"no page: the workspace is read-only (it would be {path})")
    elif first.done:
        path.parent.mkdir(parents=True, exist_ok=True)
        page = build_report(first, tracker, suite.corpus, scores, intervals, test, summed[1:], history)
        suite_report(page, path, audit_of_best(first, scores, suite.corpus))
        if suite.state.run_id and not suite.state.run_id.startswith("local-"):
            run = tracker.reopen(suite.state.run_id)
            run.artifact_text("report.html", path.read_text(encoding="utf-8"))
            run.close()
        say(f"report: {path}")
    known = ablation.base.keys()
    declared = {key for changes in ablation.arms.values() for key in changes} | {ablation.fold_key or ""}
    keys = sorted(k for k in declared | {key.rpartition(".")[0] for key in declared} if k in known)
    links = tracker.suite_views(
        suite.experiment_name, ablation.name, first.metric.rpartition("/")[2], ablation.select, keys,
        ascending=ascending(first),
    )  # fmt: skip
    if links:
        say("MLflow UI: audio-cls ui, then")
        for title, link in links.items():
            say(f"  {title}: {link}")


def suite_history(suite: Suite, result: SuiteResult) -> str:
    """How often the test clips of a suite have been opened, where for other runs too; empty where not."""
    from audio_cls.runs.opened_clips import history_of_runs

    known = {r.run_id for r in result.records if r.run_id}
    query = f"params.`ablation.suite` = '{result.ablation.name}' and tags.kind = 'cell'"
    runs = [r for r in suite.tracker.runs(filter=query) if known & {r.run_id, r.tags.get("local_uid", "")}]
    history = history_of_runs(suite.workspace, suite.tracker, runs)
    return history.sentence() if history.but(f"suite {result.ablation.name}").openings else ""


def print_arms(result: SuiteResult) -> None:
    """The table of arms on one metric."""
    from audio_cls.metrics.verdict import in_points

    points = in_points(result.metric)

    def number(value: float, signed: bool = False) -> str:
        if isnan(value):
            return ""
        return f"{100 * value:{'+' if signed else ''}.1f}" if points else f"{value:{'+' if signed else ''}.3g}"

    rows = []
    for arm in result.arms:
        c, verdict = arm.comparison, arm.verdict
        spread = "" if isnan(arm.mean.mean) else f"{number(arm.mean.mean)} ± {number(arm.mean.sd) or '?'}"
        row = [arm.name, f"{arm.done}/{arm.planned}", spread]
        if c is None or verdict is None:
            rows.append([*row, "", "", "reference"])
            continue
        interval = "" if isnan(c.low) else f" [{number(c.low)}, {number(c.high)}]"
        p = "" if isnan(verdict.p) else "< 0.001" if verdict.p < 0.001 else f"{verdict.p:.2g}"
        rows.append([*row, number(c.mean, signed=True) + interval, p, verdict.word])
    plain = result.metric.rpartition("/")[2]
    if plain in result.baseline:
        rows.append(["(baseline)", "", number(result.baseline[plain]), "", "", "learned nothing"])
    unit = " (points)" if points else ""
    columns = ["arm", "runs", "mean ± sd", "difference [95 %]", "p Holm", "verdict"]
    table(f"{result.ablation.name}: {result.metric}{unit}", columns, rows, right=(1, 2, 3, 4))


def print_folds(result: SuiteResult) -> None:
    """The table with a row for each fold, the first `FOLDS_SHOWN`; nothing for a suite on one fold."""
    from audio_cls.ablation.results import fold_rows
    from audio_cls.metrics.verdict import in_points

    columns, rows = fold_rows(result)
    if len(rows) > 1 and result.done:
        unit = " (points)" if in_points(result.metric) else ""
        table(f"{result.ablation.name}: {result.metric}{unit} by fold, mean over seeds", columns, rows[:FOLDS_SHOWN])
        if len(rows) > FOLDS_SHOWN:
            say(f"... and {len(rows) - FOLDS_SHOWN} more folds: on the page")


def _set_failed_aside(suite: Suite) -> None:
    """Rename the folders of failed cells, so that they are trained anew; nothing is deleted."""
    import time

    from audio_cls.ablation.record import grid_items
    from audio_cls.runs.grid import read_state

    for item in grid_items(suite.ablation, suite.plan, suite.corpus, suite.state.arms):
        folder = item_folder(suite.workspace, item.key)
        if read_state(folder).state == "FAILED":
            folder.rename(folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}"))
