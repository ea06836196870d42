"""`audio-cls evaluate`, `compare`, `report`: recorded runs (`report`: studies too) in use and side by side."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from audio_cls.cli.console import say, table
from audio_cls.cli.options import DEVICE, STORAGE, TRACKING, WITH, workspace_of
from audio_cls.core.errors import UserError

if TYPE_CHECKING:
    from audio_cls.runs.comparison import Beside
    from audio_cls.runs.evaluation import Scored
    from audio_cls.tracking import Tracker


@click.command("evaluate")
@click.argument("run", metavar="RUN-OR-SUITE")
@click.option("--test", "part", flag_value="test", help="Open the test split. Who chose what is recorded.")
@click.option(
    "--train", "part", flag_value="train", help="On the training clips as they are, beside the validation clips."
)
@click.option("--again", is_flag=True, help="Open it once more; counted.")
@click.option(
    "--nested", is_flag=True, help="With --test of a suite over folds: choose an arm inside each fold as well."
)
@click.option("--by", metavar="COLUMN", help="Also for each value of a column of the clips, such as salience or group.")
@STORAGE
@DEVICE
@TRACKING
@WITH
@click.pass_context
def evaluate(
    ctx: click.Context,
    run: str,
    part: Literal["train", "test"] | None,
    again: bool,
    nested: bool,
    by: str | None,
    device: str,
    storage: str | None,
) -> None:
    """Figures of a run's best weights on its validation clips.

    With --test, on its test clips, with intervals: of a run, or of all runs of a suite, cross-validation or confirmation. Where runs
    of the suite validate on these clips, as with every fold in turn, the figures are cross-validation; --nested adds a figure of
    arms that were chosen without the clips that measure them."""
    from audio_cls.ablation.targets import run_or_group
    from audio_cls.ablation.test_groups import Group
    from audio_cls.cli.openings import open_and_show, show_opening
    from audio_cls.core.device import choose_device, tune_process
    from audio_cls.runs.clip_columns import clip_column
    from audio_cls.runs.evaluation import score_with_progress
    from audio_cls.runs.preparation import Runtime
    from audio_cls.runs.test_split import open_test_split
    from audio_cls.tracking import Tracker

    test = part == "test"
    if nested and not test:
        raise UserError("--nested is a way to open the test split of a suite: add --test")
    if by is not None and test:
        raise UserError("--by tells groups of training or validation clips apart: leave out --test")
    tune_process()
    workspace = workspace_of(ctx)
    tracker = Tracker(workspace)
    tracker.flush()
    runtime = Runtime(workspace, tracker, choose_device(device))
    found = run_or_group(tracker, run, test=test, storage=storage)
    if isinstance(found, Group):
        open_and_show(runtime, found, again=again, nested=nested)
    elif nested:
        raise UserError(f"{found.name} is one run: --nested chooses among the arms of a suite or confirmation")
    elif test:
        show_opening(open_test_split(runtime, found, again=again))
    else:
        scored = score_with_progress(runtime, found, part or "validation")
        column = None if by is None else clip_column(scored.corpus, by, scored.clips)  # an unknown one is refused first
        beside = score_with_progress(runtime, found, "validation") if part == "train" else None
        _show_scored(tracker, scored, beside)
        if by is not None and column is not None:
            _show_slices(scored, by, column)


def _show_scored(tracker: Tracker, scored: Scored, beside: Scored | None) -> None:
    """Print the figures of a run; `beside` are those of its validation clips, where `scored` are its training clips."""
    from audio_cls.cli.openings import show_classes
    from audio_cls.metrics.baselines import baseline_name, finite_figures
    from audio_cls.runs.evaluation import opening_history

    overall, baseline = scored.predictions.evaluation.overall, finite_figures(scored.baseline)
    for line in scored.judgement().lines:
        say(line)
    columns = ["metric", scored.part, baseline_name(scored.corpus.task)]
    rows = [[k, v, baseline.get(k)] for k, v in overall.items()]
    if beside is not None:
        columns = ["metric", "train", "validation", "train - validation"]
        other = beside.predictions.evaluation.overall
        rows = [[k, v, other.get(k), v - other[k] if k in other else None] for k, v in overall.items()]
    table(f"{scored.run.name}: {len(scored.clips)} {scored.kind_of_clips}", columns, rows, right=range(1, len(columns)))
    if note := scored.predictions.undefined_note:
        say(note)
    show_classes(scored)
    if sentence := opening_history(tracker, scored).sentence():
        say(sentence)
    if tracker.read_only:
        say("nothing was recorded: the workspace is read-only")


def _show_slices(scored: Scored, by: str, column: list[str]) -> None:
    from audio_cls.metrics.slices import figures_by
    from audio_cls.report.tables import slice_table

    columns, rows = slice_table(figures_by(scored.predictions, column), by, scored.corpus.task)
    table(f"by {by}, with 95 % intervals over clips or groups", columns, rows, right=range(1, len(columns)))


class SnapshotCount(click.ParamType):
    """How many snapshots of each run: a number, or all."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Literal["all"]:
        if value == "all":
            return "all"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number of snapshots nor all", param, ctx)


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN [RUN...]")
@click.option(
    "--average",
    is_flag=True,
    help="Average the stored predictions of the runs: an ensemble. An arm or cross-validation stands for its runs.",
)
@click.option(
    "--weights",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="With --average: of which epoch; nobody chose the last.",
)
@click.option(
    "--snapshots",
    type=SnapshotCount(),
    default=None,
    help="With --average: of each run the last N snapshots, taken where a cycle of schedule=cosine_restarts ends.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Also write a page with the runs' curves in one figure.",
)
@WITH
@click.pass_context
def compare(
    ctx: click.Context,
    runs: tuple[str, ...],
    average: bool,
    weights: Literal["last", "best"],
    snapshots: int | Literal["all"] | None,
    html: Path | None,
) -> None:
    """What differs between runs: configuration, data, code, environment, figures; paired where they pair."""
    from audio_cls.runs.comparison import compare_runs

    if average:
        if html is not None:
            raise UserError("--html is a page of single runs: leave out --average")
        _show_ensemble(ctx, runs, weights, snapshots)
        return
    if snapshots is not None:
        raise UserError("--snapshots goes with --average: audio-cls compare --average RUN --snapshots all")
    found = compare_runs(workspace_of(ctx), runs)
    heads = found.heads
    for title, rows, nothing in (
        ("configuration", found.configuration, "the configurations are equal"),
        ("data, code, surroundings", found.surroundings, "data, split, code and surroundings are equal"),
    ):
        if rows:
            table(f"{title}: what differs", ["key", *heads], rows)
        else:
            say(nothing)
    if found.figures:
        columns = ["figure", *heads, *(["difference"] if len(heads) == 2 else [])]
        table("figures", columns, found.figures, right=range(1, len(columns)))
    for beside, head in zip(found.beside, heads[1:], strict=True):
        if beside.why_not:
            say(f"{head} does not pair with {heads[0]}: {beside.why_not}")
        else:
            _show_pairs(beside, heads[0], head)
    if html is not None:
        say(f"the runs' curves: {found.report(html)}")


def _show_ensemble(
    ctx: click.Context,
    runs: tuple[str, ...],
    weights: Literal["best", "last"],
    snapshots: int | Literal["all"] | None,
) -> None:
    from audio_cls.runs.ensemble import ensemble_runs
    from audio_cls.runs.test_split import interval_words

    found = ensemble_runs(workspace_of(ctx), runs, weights, snapshots)
    columns = [*(["last epoch", "one snapshot"] if found.snapshots else ["one model"]), "ensemble"]
    rows = []
    for name, interval in found.figures.items():
        of_one = [found.last[name], found.single[name]] if found.snapshots else [found.single[name]]
        rows.append([name, *of_one, interval.estimate, interval_words(interval)])
    title = f"average of stored {'snapshots: no figure of a single model' if found.snapshots else 'predictions'}"
    table(title, ["metric", *columns, "95 % over clips"], rows, right=range(1, len(columns) + 1))
    say(found.sentence)


def _show_pairs(beside: Beside, first: str, head: str) -> None:
    from audio_cls.metrics.base import figure_text

    rows = []
    for pair in beside.figures:
        low, high, difference = (
            figure_text(v, pair.metric, signed=True)
            for v in (pair.interval.low, pair.interval.high, pair.interval.estimate)
        )
        interval = pair.interval.note if isnan(pair.interval.low) else f"[{low}, {high}]"
        one, other = figure_text(pair.first, pair.metric), figure_text(pair.run, pair.metric)
        rows.append([pair.metric, one, other, difference, interval])
    columns = ["metric", "first", "run", "difference", "95 %"]
    say(f"{head} against {first}:")
    table(f"paired bootstrap over {beside.n_clips} clips (points)", columns, rows, right=range(1, 5))
    say(
        "one run each: the interval is of these two models on other clips; training again is not in it (audio-cls ablate run)"
    )


@click.command("report")
@click.argument("run_or_study")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="The file. Default: reports/NAME.html.",
)
@STORAGE
@DEVICE
@WITH
@click.pass_context
def report(ctx: click.Context, run_or_study: str, html: Path | None, storage: str | None, device: str) -> None:
    """One HTML page of a run (with clips to hear) or a study, also logged to MLflow."""
    from audio_cls.runs.page_data import PAGE, page_path, run_page, write_page
    from audio_cls.study.page_data import study_or_run, study_page
    from audio_cls.tracking import Tracker

    workspace = workspace_of(ctx)
    tracker = Tracker(workspace)
    tracker.flush()
    found = study_or_run(tracker, run_or_study, storage)
    if isinstance(found, str):
        path = page_path(workspace, f"study-{found}", html)
        run_id, page = study_page(workspace, found, storage, tracker)
    else:
        path = page_path(workspace, f"run-{found.name}-{found.run_id[:8]}", html)
        run_id, page = found.run_id, run_page(workspace, tracker, found, device)
    written = write_page(tracker, path, page, run_id)
    logged = f"; in MLflow it is {PAGE} of the run {written.run_id[:8]}" if written.run_id else ""
    if tracker.read_only:
        logged = "; not logged to MLflow: the workspace is read-only"
    say(f"{written.path} ({written.n_bytes / 1e6:.1f} MB){logged}")
