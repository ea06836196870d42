"""`audio-cls study`: search, look, continue, move."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audio_cls.cli.console import say, table
from audio_cls.cli.options import (
    SET,
    STORAGE,
    SUBSET,
    TRACKING,
    TRUST,
    WITH,
    WITH_FOR_WORKERS,
    Commands,
    queue_options,
    subset_assignments,
    subset_suffix,
    workspace_of,
)
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import count
from audio_cls.core.notices import is_interactive
from audio_cls.core.stopping import Interrupted

if TYPE_CHECKING:
    from audio_cls.queue.options import QueueOptions
    from audio_cls.queue.status import StudyStatus
    from audio_cls.queue.storage import StudyStorage
    from audio_cls.study.running import SearchOutcome


@click.group(cls=Commands)
def study() -> None:
    """Search with Optuna: run, look at, continue."""


@study.command("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=None,
    help="Total of finished configurations; the same command again goes on. A grid runs all its rows unless given.",
)
@click.option(
    "--new-version",
    is_flag=True,
    help="When the declaration has changed: begin NAME.v2, with the trials whose values still count.",
)
@SET
@SUBSET
@queue_options
@TRACKING
@TRUST
@WITH_FOR_WORKERS
@click.pass_context
def study_run(ctx: click.Context, file: Path, trials: int | None, new_version: bool, subset: float | None, assignments: tuple[str, ...], options: QueueOptions, parts: tuple[Path, ...], trust: bool) -> None:  # fmt: skip
    """Run the study that FILE declares (or that was run under the name FILE) until --trials configurations have finished."""
    from audio_cls.study.launches import find_launch
    from audio_cls.study.running import run_search

    workspace = workspace_of(ctx)
    launch = find_launch(
        workspace, str(file), options.storage, (*assignments, *subset_assignments(subset)), trust=trust
    )
    launch = replace(launch, suffix=subset_suffix(subset))
    _show_outcome(run_search(workspace, launch, trials, options, new_version=new_version, parts=parts))


def _show_outcome(outcome: SearchOutcome) -> None:
    """Print how a search stands.

    Raises:
        Interrupted: where it was asked to leave before it was done.
    """
    _show_status(outcome.status)
    if outcome.page is not None:
        say(f"report: {outcome.page}")
    if outcome.problem:
        say(f"no report: {outcome.problem}", err=True)
    if outcome.links:
        say("\nMLflow UI: audio-cls ui, then")
        for title, link in outcome.links.items():
            say(f"  {title}: {link}")
    if not outcome.done:
        raise Interrupted("\ninterrupted: the same command goes on")


def _show_status(status: StudyStatus, top: int | None = None) -> None:
    from audio_cls.cli.console import console
    from audio_cls.cli.leaderboard import leaderboard
    from audio_cls.metrics.published import published_lines
    from audio_cls.queue.status import summary

    show = console()
    show.print(leaderboard(status, top, show.width))
    for line in summary(status):
        say(line)
    for line in published_lines(status.published):
        say(line)


@study.command("revive")
@click.argument("study_ref", metavar="STUDY")
@click.option(
    "--top", type=click.IntRange(1), default=None, help="The K best of all that were pruned, by their best epoch."
)
@click.option(
    "--trial", "numbers", type=int, multiple=True, help="This trial. Repeatable. Default: all that were pruned."
)
@click.option("--epochs", type=click.IntRange(1), default=None, help="A larger budget than they began with.")
@SET
@queue_options
@TRACKING
@TRUST
@WITH_FOR_WORKERS
@click.pass_context
def study_revive(ctx: click.Context, study_ref: str, top: int | None, numbers: tuple[int, ...], epochs: int | None, options: QueueOptions, trust: bool, **given: Any) -> None:  # fmt: skip
    """Take pruned trials up from their checkpoint and train them to the end. STUDY is a name or a file.

    They are exempt from pruning, continue in the same MLflow run, and are marked as revived. The same command again continues."""
    from audio_cls.study.launches import find_launch
    from audio_cls.study.revive import Wanted, run_revivals

    workspace = workspace_of(ctx)
    launch = find_launch(workspace, study_ref, options.storage, given["assignments"], trust=trust)
    outcome = run_revivals(workspace, launch, Wanted(top, numbers, epochs), options, given["parts"])
    if outcome is None:
        say("nothing to run")
    else:
        _show_outcome(outcome)


@study.command("export")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--with-data", is_flag=True, help="Put the packed corpus in as well.")
@STORAGE
@click.pass_context
def study_export(ctx: click.Context, name: str, file: Path, with_data: bool, storage: str | None) -> None:
    """Write a study with its checkpoints and MLflow runs to one FILE; workers may continue meanwhile."""
    from audio_cls.study.transfer.exporting import export_study

    for line in export_study(workspace_of(ctx), name, file, storage=storage, with_data=with_data):
        say(line)


@study.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", default=None, help="Take it in under another name.")
@click.option("--merge", is_flag=True, help="Join it with the study of this name here: two copies that both went on.")
@TRUST
@STORAGE
@click.pass_context
def study_import(
    ctx: click.Context, file: Path, name: str | None, merge: bool, trust: bool, storage: str | None
) -> None:
    """Take in a study that `study export` wrote, here or on another machine; then `study run` continues.

    Its Python files are written to imported/NAME and listed; they are not run before you agree (--trust, here or later)."""
    from audio_cls.study.transfer.importing import import_study

    for line in import_study(workspace_of(ctx), file, name=name, merge=merge, storage=storage, trust=trust):
        say(line)


@study.command("remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--with-runs",
    is_flag=True,
    help="Delete its MLflow runs, their models (but registered ones) and its checkpoints as well.",
)
@STORAGE
@TRACKING
@click.pass_context
def study_remove(ctx: click.Context, name: str, yes: bool, with_runs: bool, storage: str | None) -> None:
    """Take a study out of the database; its MLflow runs and checkpoints stay. Refused while workers run it."""
    from audio_cls.queue.storage import open_storage
    from audio_cls.study.transfer.removal import refuse_unknown, remove_study

    workspace = workspace_of(ctx)
    where = open_storage(storage or workspace.optuna_db, must_exist=True)
    refuse_unknown(where, name)
    if not yes:
        kept = "its MLflow runs and checkpoints go with it" if with_runs else "its MLflow runs and checkpoints stay"
        if not is_interactive():
            raise UserError(f"study remove {name}: nobody is here to be asked; add --yes ({kept})")
        if not click.confirm(f"Remove the study {name!r} from {where.shown}? {kept[0].upper()}{kept[1:]}."):
            say("nothing was removed")
            return
    for line in remove_study(workspace, name, where, with_runs=with_runs):
        say(line)


@study.command("status")
@click.argument("name_or_file", required=False)
@click.option("--top", type=click.IntRange(1), help="Rows of the leaderboard.  [default: 10; of a grid all]")
@STORAGE
@WITH
@click.pass_context
def study_status(ctx: click.Context, name_or_file: str | None, top: int | None, storage: str | None) -> None:
    """Progress, best so far, running, pruned and failed trials with reasons, and what is left. Without a name: all studies."""
    from audio_cls.data.remarks import declared_remarks
    from audio_cls.queue.status import stored_status
    from audio_cls.queue.storage import IDENTITY, load_study, open_storage
    from audio_cls.study.opening import stored_name

    where = open_storage(storage or workspace_of(ctx).optuna_db, must_exist=True)
    if name_or_file is None:
        _table_of_all(where)
        return
    name = stored_name(name_or_file, where)
    _show_status(stored_status(name, where), top)
    for remark in declared_remarks(load_study(name, where).user_attrs.get(IDENTITY, {}).get("base", {})):
        say(f"note: {remark}")


def _table_of_all(where: StudyStorage) -> None:
    """Print a row for each study; a damaged one is named below, and hides no other."""
    from audio_cls.queue.status import BEST_EPOCH, stored_status
    from audio_cls.queue.storage import study_names

    rows: list[list[Any]] = []
    damaged: list[str] = []
    for name in study_names(where):
        try:
            s = stored_status(name, where)
        except UserError as error:
            damaged.append(str(error))
            rows.append([name, "damaged", None, None, None, None])
            continue
        best = None if s.best is None else s.best.value
        rows.append([name, f"{s.finished}/{s.total or '?'}", s.running, s.pruned, sum(s.failed.values()), best])
    table(f"studies (best: {BEST_EPOCH})", ["study", "finished", "running", "pruned", "failed", "best"], rows)
    for line in damaged:
        say(line)


@study.command("best")
@click.argument("name_or_file")
@click.option("--json", "as_json", is_flag=True, help="The whole experiment as JSON, for `train`.")
@STORAGE
@WITH
@click.pass_context
def study_best(ctx: click.Context, name_or_file: str, as_json: bool, storage: str | None) -> None:
    """The best trial: its figures at the best and at the last epoch, parameters, and the command that trains it again."""
    from audio_cls.queue.status import (
        BEST_EPOCH,
        baseline_of,
        best_experiment,
        findings_of,
        last_epoch_of,
        stored_status,
    )
    from audio_cls.queue.storage import open_storage
    from audio_cls.study.opening import stored_name

    where = open_storage(storage or workspace_of(ctx).optuna_db, must_exist=True)
    status = stored_status(stored_name(name_or_file, where), where)
    best, experiment = best_experiment(status)
    if as_json:
        say(json.dumps(experiment, indent=2))
        return
    baseline, last = baseline_of(status), last_epoch_of(best, status.metric)
    for line in findings_of(status):
        say(line)
    table(f"{status.name}: the best of {count(status.finished, 'configuration')}", ["what", "value"], [
        [f"{status.metric}, {BEST_EPOCH}", best.value],
        *([[f"{status.metric}, last epoch", last]] if last is not None else []),
        *([["a model that learned nothing", baseline]] if baseline is not None else []),
        ["trial", best.number],
        ["configuration", best.config],
        ["epochs", best.epochs],
        *[[k, v] for k, v in best.params.items()],
    ])  # fmt: skip
    say(
        f"again:  audio-cls study best {name_or_file} --json > best.json && audio-cls train best.json --folds all --seeds 3"
    )


@study.command("confirm")
@click.argument("name_or_file")
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="How many of the best configurations."
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Fresh seeds for each.")
@click.option("--folds", default=None, help="all, or a list such as 1,2,3. Default: the split that was searched on.")
@queue_options
@WITH
@TRACKING
@click.pass_context
def study_confirm(
    ctx: click.Context, name_or_file: str, top: int, seeds: int, folds: str | None, options: QueueOptions
) -> None:
    """Run the best configurations again on fresh seeds and folds, and rank them again by their last epoch: what was luck?"""
    from audio_cls.ablation.confirmation import confirm, plan_confirmation
    from audio_cls.ablation.filling import cell_name, why_failed
    from audio_cls.cli.ablations import refuse_unfinished
    from audio_cls.metrics.verdict import in_points
    from audio_cls.tracking import Tracker

    tracker = Tracker(workspace_of(ctx))
    tracker.flush()
    plan = plan_confirmation(name_or_file, tracker, options, top=top, seeds=seeds, folds=folds)
    say(f"confirm {plan.study}: {plan.size}")
    outcome = confirm(plan, tracker, options)
    columns, rows = outcome.table()
    points = " (points)" if in_points(plan.metric) else ""
    table(f"{plan.study}: {plan.metric}{points}, confirmed", columns, rows, right=range(len(columns)))
    for line in outcome.lines():
        say(line)
    for state in outcome.filled.states:
        if state.state == "FAILED":
            say(f"FAILED {cell_name(state)}: {why_failed(state)}")
    refuse_unfinished(outcome.filled)
