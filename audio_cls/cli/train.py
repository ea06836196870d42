"""`audio-cls train`: one run, or the runs of a cross-validation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audio_cls.cli.console import progress, say, table
from audio_cls.cli.options import (
    SET,
    SUBSET,
    TRACKING,
    WITH_FOR_WORKERS,
    queue_options,
    subset_assignments,
    workspace_of,
)
from audio_cls.core.disk import DiskFull
from audio_cls.core.errors import UserError
from audio_cls.core.stopping import Interrupted, StopRequest, Watch

if TYPE_CHECKING:
    from audio_cls.ablation.cross_validation import CrossValidation, FoldsOutcome
    from audio_cls.core.workspace import Workspace
    from audio_cls.experiment import Experiment
    from audio_cls.queue.options import QueueOptions
    from audio_cls.runs.single import RunState, SingleRun


@click.command("train")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@SET
@click.option("--name", default=None, help="The run's name in MLflow. Default: from the model.")
@click.option("--folds", default=None, help="all, or a list such as 1,2,3: one run for each fold.")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Runs for each fold, seeds counted up from the experiment's.",
)
@queue_options
@click.option(
    "--allow-duplicates",
    is_flag=True,
    help="Let identical clips stand on two sides of the split (data.split.allow_duplicates=true); recorded.",
)
@SUBSET
@click.option(
    "--overfit",
    is_flag=True,
    help="Capacity check: evaluate on the clips that are trained on (data.overfit=true). Marked so wherever its figures are shown.",
)
@click.option("--again", is_flag=True, help="Train anew although the same run is there.")
@TRACKING
@WITH_FOR_WORKERS
@click.pass_context
def train(ctx: click.Context, file: Path | None, assignments: tuple[str, ...], again: bool, allow_duplicates: bool, subset: float | None, overfit: bool, parts: tuple[Path, ...], options: QueueOptions, **grid: Any) -> None:  # fmt: skip
    """Train an experiment: FILE declares EXPERIMENT, or the defaults; --set changes keys. Run again, it continues.

    With --folds or --seeds several runs are trained by --workers processes, and more folds or seeds join those that are there."""
    from audio_cls.ablation.cross_validation import cross_validate, plan_cross_validation
    from audio_cls.experiment import Experiment
    from audio_cls.runs.preparation import open_corpus
    from audio_cls.runs.resolve import announce
    from audio_cls.runs.single import SingleRun
    from audio_cls.tracking import Tracker

    workspace = workspace_of(ctx)
    if allow_duplicates:
        assignments = (*assignments, "data.split.allow_duplicates=true")
    if overfit:
        assignments = (*assignments, "data.overfit=true")
    assignments = (*assignments, *subset_assignments(subset))
    experiment = load_experiment(workspace, file, assignments).check()
    plan = plan_cross_validation(experiment, open_corpus(workspace, experiment.data), **grid)
    announce(plan.resolved, plan.corpus)
    if len(plan.cells) == 1:
        cell, sources = plan.cells[0], (file,) if file and file.suffix == ".py" else ()
        assert isinstance(cell.experiment, Experiment)
        _train_one(
            workspace,
            SingleRun(cell.name, cell.experiment, cell.key, cell.tags, sources, options.log_model != "none"),
            again,
            options,
        )
        return
    say(f"{plan.name}: {plan.size}")
    files = [*parts, *([file] if file and file.suffix == ".py" else [])]
    outcome = cross_validate(plan, Tracker(workspace), options, again=again, files=files)
    _show_folds(plan, outcome)


def load_experiment(workspace: Workspace, file: Path | None, assignments: Sequence[str]) -> Experiment:
    """An experiment from a Python file (EXPERIMENT), a JSON file, or the defaults, with overrides. Parts of the user's own that
    ran in the workspace before are found by their kinds."""
    from audio_cls.core.config import parse_assignment
    from audio_cls.core.loading import declaration
    from audio_cls.experiment import Experiment
    from audio_cls.runs.own_parts import read_recorded, recorded

    changes = dict(parse_assignment(a) for a in assignments)
    if file is not None and file.suffix != ".json":
        base = declaration(file, Experiment)
        return recorded(lambda: base.override(changes), workspace)
    if file is None:
        return recorded(lambda: Experiment().override(changes), workspace)
    if not file.exists():
        raise UserError(f"no file {str(file)!r}")
    text = read_recorded(file)
    return recorded(lambda: Experiment.from_json(text, str(file)).override(changes), workspace)


def _train_one(workspace: Workspace, run: SingleRun, again: bool, options: QueueOptions) -> None:
    from audio_cls.core.device import choose_device, tune_process
    from audio_cls.runs.preparation import Runtime
    from audio_cls.runs.single import continue_run, read_state, run_folder
    from audio_cls.tracking import Tracker

    tune_process()
    before = read_state(run_folder(workspace, run.key))
    if before.done and not again:
        _say_outcome(run.name, before, again=True)
        return
    training = run.experiment.training
    with StopRequest(grace=options.grace_seconds) as stop, progress(run.name) as tell:
        runtime = Runtime(workspace, Tracker(workspace), choose_device(options.device), watch=Watch(stop, tell.phase))
        state = continue_run(
            run,
            runtime,
            again,
            on_begin=lambda done: say(f"going on after epoch {done}") if done else None,
            on_epoch=lambda epoch, value: tell(epoch + 1, training.epochs, f"epochs, {training.metric} {value:.3f}"),
        )
    runtime.tracker.flush()
    _say_outcome(run.name, state)


def _say_outcome(name: str, state: RunState, again: bool = False) -> None:
    from audio_cls.data.remarks import recorded_remarks

    if state.state == "COMPLETE":
        for line in state.findings:
            say(line)
        figures = (state.metrics, state.last, state.baseline) if state.baseline else (state.metrics, state.last)
        row = [[k, *(round(v[k], 4) if k in v else None for v in figures)] for k in state.metrics]
        columns = ["metric", "best epoch", "last epoch", "baseline"][: len(figures) + 1]
        size = f", {state.cost['parameters']:,.0f} parameters" if "parameters" in state.cost else ""
        table(f"{name}: validation{size}", columns, row, right=range(1, len(columns)))
        _say_remarks(recorded_remarks(state.facts))
        tail = " It was trained before; --again trains it anew." if again else ""
        say(f"run {state.run_id}.{tail} Next: audio-cls evaluate {str(state.run_id)[:8]}")
    elif state.state == "INTERRUPTED" and state.reason.startswith("disk full"):
        raise DiskFull(f"{state.reason}. Make room and run the same command again; nothing that was durable is lost")
    elif state.state == "INTERRUPTED":
        after = f"after epoch {state.epoch + 1}" if state.epoch >= 0 else "before the first epoch was finished"
        raise Interrupted(f"{state.reason} {after}; the same command goes on")
    else:
        raise UserError(f"{name}: {state.state}: {state.why}")


def _show_folds(plan: CrossValidation, outcome: FoldsOutcome) -> None:
    """Print the figures of a cross-validation: over all runs, by fold, and of the pooled predictions.

    Raises:
        UserError: where runs were refused.
    """
    from audio_cls.cli.ablations import refuse_unfinished
    from audio_cls.runs.folds import fold_table

    for line in outcome.findings:
        say(line)
    if outcome.complete:
        rows = [[k, m, s, outcome.baseline.get(k.partition("/")[2])] for k, (m, s) in outcome.summary.items()]
        total = len({s.id for s in (*outcome.complete, *outcome.filled.states)})
        title = f"{plan.name}: {len(outcome.complete)} of {total} runs"
        table(title, ["metric", "mean", "std", "baseline"], rows, right=(1, 2, 3))
    if outcome.by_fold:
        metric = plan.experiment.training.metric.rpartition("/")[2]
        plain = dict.fromkeys([metric, "mAP" if plan.corpus.task == "multilabel" else "accuracy"])
        shown = [m for m in plain if m in outcome.by_fold[0].best]
        table(f"{plan.name}: by fold, validation", *fold_table(outcome.by_fold, shown))
    if outcome.pooled:
        rows = [[k.removeprefix("best/oof_"), v] for k, v in outcome.pooled.items() if k.startswith("best/")]
        title = f"{plan.name}: out-of-fold predictions, pooled over {len(outcome.by_fold)} folds"
        table(title, ["metric", "mean over seeds"], rows)
    _say_remarks(outcome.remarks)
    for run, reason in outcome.failed:
        say(f"FAILED {run}: {reason}")
    refuse_unfinished(outcome.filled)


def _say_remarks(remarks: Iterable[str]) -> None:
    """Print what a reader of these figures must know of their split."""
    for remark in dict.fromkeys(remarks):
        if remark:
            say(f"note: {remark}")
