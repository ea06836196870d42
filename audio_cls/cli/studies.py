"""`audio-cls study`: search, look, go on, move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from audio_cls.cli.console import say, table
from audio_cls.cli.options import (
    DEVICE,
    GRACE,
    SET,
    STORAGE,
    TRACKING,
    TRUST,
    WITH,
    WITH_FOR_WORKERS,
    WORKERS,
    Commands,
    queue_options,
    workspace_of,
)
from audio_cls.core.errors import UserError
from audio_cls.core.notices import is_interactive


@click.group(cls=Commands)
def study() -> None:
    """Search with Optuna: run, look at, continue."""


@study.command("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--trials",
    type=click.IntRange(1),
    required=True,
    help="Total of finished configurations; the same command again goes on.",
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Worker processes.")
@click.option(
    "--new-version",
    is_flag=True,
    help="When the declaration has changed: begin NAME.v2, with the trials whose values still count.",
)
@STORAGE
@SET
@DEVICE
@GRACE
@TRACKING
@TRUST
@WITH_FOR_WORKERS
@click.pass_context
def study_run(ctx: click.Context, file: Path, trials: int, workers: int, new_version: bool, storage: str | None, assignments: tuple[str, ...], device: str, grace: float, parts: tuple[Path, ...], trust: bool) -> None:  # fmt: skip
    """Run the study that FILE declares (or that was run under the name FILE) until --trials configurations have finished."""
    from audio_cls.cli.study_commands import run_command

    run_command(
        workspace_of(ctx),
        file,
        trials=trials,
        workers=workers,
        storage=storage,
        assignments=assignments,
        device=device,
        grace=grace,
        new_version=new_version,
        trust=trust,
        parts=parts,
    )


@study.command("revive")
@click.argument("study_ref", metavar="STUDY")
@click.option(
    "--top", type=click.IntRange(1), default=None, help="The K best of all that were pruned, by their best epoch."
)
@click.option(
    "--trial", "numbers", type=int, multiple=True, help="This trial. Repeatable. Default: all that were pruned."
)
@click.option("--epochs", type=click.IntRange(1), default=None, help="A larger budget than they began with.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Worker processes.")
@STORAGE
@SET
@DEVICE
@GRACE
@TRACKING
@TRUST
@WITH_FOR_WORKERS
@click.pass_context
def study_revive(ctx: click.Context, study_ref: str, **options: Any) -> None:
    """Take pruned trials up from their checkpoints and train them to the end. STUDY is a name or a file.

    They are exempt from pruning, go on in the same MLflow run, and are marked as revived. The same command again goes on."""
    from audio_cls.study.revive import revive_command

    revive_command(workspace_of(ctx), study_ref, **options)


@study.command("export")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--with-data", is_flag=True, help="Put the packed corpus in as well.")
@STORAGE
@click.pass_context
def study_export(ctx: click.Context, name: str, file: Path, with_data: bool, storage: str | None) -> None:
    """Write a study with its checkpoints and MLflow runs to one FILE; workers may go on meanwhile."""
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
    """Take in a study that `study export` wrote, here or on another machine; then `study run` goes on.

    Its Python files are written to imported/NAME and listed; they are not run before you agree (--trust, here or later)."""
    from audio_cls.study.transfer.importing import import_study

    for line in import_study(workspace_of(ctx), file, name=name, merge=merge, storage=storage, trust=trust):
        say(line)


@study.command("remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--with-runs", is_flag=True, help="Delete its MLflow runs and its checkpoints as well.")
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
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Rows of the leaderboard.")
@STORAGE
@WITH
@click.pass_context
def study_status(ctx: click.Context, name_or_file: str | None, top: int, storage: str | None) -> None:
    """Progress, best so far, running, pruned and failed trials with reasons, and what is left. Without a name: all studies."""
    from audio_cls.cli.study_commands import status_command

    status_command(workspace_of(ctx), name_or_file, top=top, storage=storage)


@study.command("best")
@click.argument("name_or_file")
@click.option("--json", "as_json", is_flag=True, help="The whole experiment as JSON, for `train`.")
@STORAGE
@WITH
@click.pass_context
def study_best(ctx: click.Context, name_or_file: str, as_json: bool, storage: str | None) -> None:
    """The best trial: value, parameters, and the command that trains it again."""
    from audio_cls.cli.study_commands import best_command

    best_command(workspace_of(ctx), name_or_file, as_json=as_json, storage=storage)


@study.command("confirm")
@click.argument("name_or_file")
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="How many of the best configurations."
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Fresh seeds for each.")
@click.option("--folds", default=None, help="all, or a list such as 1,2,3. Default: the split that was searched on.")
@WORKERS
@STORAGE
@DEVICE
@WITH
@GRACE
@TRACKING
@click.pass_context
def study_confirm(ctx: click.Context, name_or_file: str, top: int, seeds: int, folds: str | None, **queue: Any) -> None:
    """Run the best configurations again on fresh seeds and folds, and rank them anew: what was luck?"""
    from audio_cls.ablation.confirmation import confirm, plan_confirmation
    from audio_cls.ablation.filling import cell_name, why_failed
    from audio_cls.cli.ablations import refuse_unfinished
    from audio_cls.metrics.verdict import in_points
    from audio_cls.tracking import Tracker

    options, tracker = queue_options(**queue), Tracker(workspace_of(ctx))
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
