"""What the commands do, once parsed: the only module besides `cli` that prints."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audio_cls.cli.console import say, table
from audio_cls.core.config import parse_assignment
from audio_cls.core.disk import DiskFull
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import count
from audio_cls.core.stopping import GRACE_SECONDS, StopRequest, Watch
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment
from audio_cls.metrics.baselines import BASELINE
from audio_cls.runs.folds import FOLDS_CSV, asked_folds, fold_csv, fold_figures, fold_label, fold_table, grid_text
from audio_cls.runs.grid import GridItem, RunState, item_folder, read_state, run_grid, run_key, write_state
from audio_cls.runs.resolve import TAG, Resolved, hand_set_faults, resolve
from audio_cls.runs.single import SingleRun, continue_run, run_folder


def load_experiment(workspace: Workspace, file: Path | None, assignments: Sequence[str]) -> Experiment:
    """An experiment from a Python file (EXPERIMENT), a JSON file, or the defaults, with overrides. Parts of the user's own that
    ran in the workspace before are found by their kinds."""
    from audio_cls.core.loading import declaration
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


# -- train --------------------------------------------------------------------------------------------------------


def train_command(
    workspace: Workspace,
    file: Path | None,
    assignments: Sequence[str],
    *,
    name: str | None,
    folds: str | None,
    seeds: int,
    workers: int,
    again: bool,
    device: str,
    grace: float = GRACE_SECONDS,
) -> None:
    """Train one run, or a grid of folds x seeds below one parent run."""
    from audio_cls.runs.preparation import check_fits, open_corpus

    experiment = load_experiment(workspace, file, assignments).check()
    corpus = open_corpus(workspace, experiment.data.corpus)
    resolved = resolve(experiment, corpus)
    experiment = resolved.experiment
    name = name or f"{experiment.model.kind} {experiment.features.kind}"
    cells = _cells(experiment, corpus, folds, seeds, name)
    check_fits(cells[0][1], corpus)
    for _, cell, _ in cells[1:]:
        cell.data.split.assign(corpus)
    say_resolved(resolved, corpus)
    items = [GridItem(n, e.to_dict(), run_key(e.digest(), corpus.digest), tags | resolved.tags) for n, e, tags in cells]
    if len(items) == 1:
        sources = (file,) if file and file.suffix == ".py" else ()
        run = SingleRun(items[0].name, cells[0][1], items[0].key, items[0].tags, sources)
        _train_one(workspace, run, again, device, grace)
    else:
        if again:
            _forget(workspace, items)
        _train_grid(workspace, items, name, experiment, corpus, workers, file, device, grace)


def say_resolved(resolved: Resolved, corpus: Corpus) -> None:
    """Print what was chosen from the data, and what is set by hand against it: once, by the command that the user started."""
    if resolved.choices:
        say("from the data:\n  " + "\n  ".join(resolved.lines()))
    for line in hand_set_faults(resolved, corpus):
        say(f"warning: {line}", err=True)


def _cells(
    experiment: Experiment, corpus: Any, folds: str | None, seeds: int, name: str
) -> list[tuple[str, Experiment, dict[str, str]]]:
    fold_key, values = asked_folds(experiment, corpus, folds)
    names = experiment.data.split.folds(corpus) if fold_key else {}
    out = []
    for fold in values:
        for seed in range(experiment.seed, experiment.seed + seeds):
            changes: dict[str, Any] = {"seed": seed}
            label, tags = name, {"seed": str(seed)}
            if fold is not None:
                changes[str(fold_key)] = fold
                label, tags["fold"] = f"{label} {fold_label(fold, names[fold])}", str(fold)
            if seeds > 1:
                label = f"{label} seed {seed}"
            out.append((label, experiment.override(changes), tags))
    return out


def _forget(workspace: Workspace, items: Sequence[GridItem]) -> None:
    """Move finished runs' folders aside, so that the same experiments are trained anew; nothing is deleted."""
    for item in items:
        folder = item_folder(workspace, item.key)
        if folder.exists():
            folder.rename(folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}"))


def _train_one(workspace: Workspace, run: SingleRun, again: bool, device: str, grace: float) -> None:
    from audio_cls.cli.console import progress
    from audio_cls.core.device import choose_device, tune_process
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import Tracker

    tune_process()
    before = read_state(run_folder(workspace, run.key))
    if before.done and not again:
        _say_outcome(run.name, before, again=True)
        return
    training = run.experiment.training
    with StopRequest(grace=grace) as stop, progress(run.name) as tell:
        runtime = Runtime(workspace, Tracker(workspace), choose_device(device), watch=Watch(stop, tell.phase))
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
    if state.state == "COMPLETE":
        for line in state.findings:
            say(line)
        figures = (state.metrics, state.last, state.baseline) if state.baseline else (state.metrics, state.last)
        row = [[k, *(round(v[k], 4) if k in v else None for v in figures)] for k in state.metrics]
        columns = ["metric", "best epoch", "last epoch", "baseline"][: len(figures) + 1]
        table(f"{name}: validation", columns, row, right=range(1, len(columns)))
        _say_remarks([state])
        tail = " It was trained before; --again trains it anew." if again else ""
        say(f"run {state.run_id}.{tail} Next: audio-cls evaluate {str(state.run_id)[:8]}")
    elif state.state == "INTERRUPTED" and state.reason.startswith("disk full"):
        raise DiskFull(f"{state.reason}. Make room and run the same command again; nothing that was durable is lost")
    elif state.state == "INTERRUPTED":
        after = f"after epoch {state.epoch + 1}" if state.epoch >= 0 else "before the first epoch was finished"
        say(f"{state.reason} {after}; the same command goes on")
        raise SystemExit(130)
    else:
        raise UserError(f"{name}: {state.state}: {state.why}")


def _train_grid(
    workspace: Workspace,
    items: list[GridItem],
    name: str,
    experiment: Experiment,
    corpus: Any,
    workers: int,
    file: Path | None,
    device: str,
    grace: float,
) -> None:
    from audio_cls.cli.console import progress
    from audio_cls.runs.preparation import mlflow_experiment
    from audio_cls.tracking import DatasetInfo, Tracker

    tracker = Tracker(workspace)
    dataset = DatasetInfo(
        corpus.name, corpus.digest, corpus.task, len(corpus), tuple(corpus.classes), str(corpus.directory)
    )
    key = run_key(experiment.digest(), corpus.digest) + f"-grid{len(items)}"
    folder = item_folder(workspace, key)
    state = read_state(folder)
    parent = tracker.start(
        mlflow_experiment(corpus), name, parent=None, kind="cross-validation", params=experiment.flatten(),
        tags={"runs": str(len(items)), "data.digest": corpus.digest, **{k: v for k, v in items[0].tags.items() if k == TAG}}, dataset=dataset, run_id=state.run_id,
    )  # fmt: skip
    state.run_id = parent.run_id
    write_state(folder, state)
    say(f"{name}: {_grid_size(items)}")
    with progress(name) as tell:

        def poll(states: list[RunState], phases: str) -> None:
            done = sum(s.done for s in states)
            epochs = count(sum(s.epoch + 1 for s in states), "epoch")
            tell(done, len(states), ", ".join(part for part in (f"runs, {epochs}", phases) if part))

        states = run_grid(
            items, workspace, workers=workers, parent=parent.run_id, kind="fold", device=device,
            files=[file] if file and file.suffix == ".py" else [], on_poll=poll, grace_seconds=grace,
        )  # fmt: skip
    complete = [s for s in states if s.state == "COMPLETE"]
    if complete:
        summary = summarise(complete)
        parent.final(
            {f"mean/{k}": m for k, (m, _) in summary.items()} | {f"std/{k}": s for k, (_, s) in summary.items()}
        )
        baseline = _mean_baseline(complete)
        parent.final({f"{BASELINE}{k}": v for k, v in baseline.items()})
        judgement = _judge_grid(tracker, items, states, corpus)
        for line in judgement:
            say(line)
        parent.tags({"findings": " ".join(judgement) or "none"})
        rows = [[k, m, s, baseline.get(k.partition("/")[2])] for k, (m, s) in summary.items()]
        table(
            f"{name}: {len(complete)} of {len(items)} runs",
            ["metric", "mean", "std", "baseline"],
            rows,
            right=(1, 2, 3),
        )
    if complete and all("fold" in item.tags for item in items):
        figures = fold_figures(
            [
                (int(i.tags["fold"]), s.facts.get("split.fold_name", i.tags["fold"]), s.metrics, s.last)
                for i, s in zip(items, states, strict=True)
                if s.state == "COMPLETE"
            ]
        )
        plain = [experiment.training.metric.rpartition("/")[2], "mAP" if corpus.task == "multilabel" else "accuracy"]
        table(
            f"{name}: by fold, validation",
            *fold_table(figures, [m for m in dict.fromkeys(plain) if m in figures[0].best]),
        )
        parent.artifact_text(FOLDS_CSV, fold_csv(figures))
        from audio_cls.ablation.predictions import log_out_of_fold

        cells = {
            (int(i.tags["seed"]), int(i.tags["fold"])): str(s.run_id)
            for i, s in zip(items, states, strict=True)
            if s.state == "COMPLETE"
        }
        folds = {int(i.tags["fold"]) for i in items}
        whole = {c: r for c, r in cells.items() if all((c[0], f) in cells for f in folds)}
        pooled = log_out_of_fold(parent, tracker, whole, corpus) if whole else {}
        if pooled:
            rows = [[key.removeprefix("best/oof_"), value] for key, value in pooled.items() if key.startswith("best/")]
            table(
                f"{name}: out-of-fold predictions, pooled over {len(folds)} folds", ["metric", "mean over seeds"], rows
            )
    _say_remarks(complete)
    if remarks := {s.facts["split.shared_groups"] for s in complete if "split.shared_groups" in s.facts}:
        parent.tags({"split.shared_groups": "; ".join(sorted(remarks))})
    left = [i.name for i, s in zip(items, states, strict=True) if not s.done]
    failed = [(i.name, s.why) for i, s in zip(items, states, strict=True) if s.state == "FAILED"]
    parent.finish("INTERRUPTED" if left else "FAILED" if failed and not complete else "COMPLETE")
    tracker.flush()
    for run, reason in failed:
        say(f"FAILED {run}: {reason}")
    if left:
        say(f"{len(left)} runs are left; the same command goes on with them")
        raise SystemExit(130)


def _grid_size(items: Sequence[GridItem]) -> str:
    n_folds, n_seeds = (len({item.tags.get(key, "") for item in items}) for key in ("fold", "seed"))
    return grid_text(folds=n_folds, seeds=n_seeds) if "fold" in items[0].tags else grid_text(seeds=n_seeds)


def _say_remarks(states: Sequence[RunState]) -> None:
    """Print what a reader of these figures must know of their split."""
    for remark in dict.fromkeys(s.facts.get("split.shared_groups", "") for s in states):
        if remark:
            say(f"note: {remark}")


def _mean_baseline(states: Sequence[RunState]) -> dict[str, float]:
    """The figures of a model that learned nothing, the mean over the runs that all have them."""
    keys = [key for key in states[0].baseline if all(key in s.baseline for s in states)]
    return {key: statistics.fmean(s.baseline[key] for s in states) for key in keys}


def _judge_grid(tracker: Any, items: Sequence[GridItem], states: Sequence[RunState], corpus: Any) -> tuple[str, ...]:
    """What is wrong with the predictions of a grid's runs together, in sentences."""
    from audio_cls.ablation.answers import judge_cells
    from audio_cls.runs.scores import read_cell_scores

    cells, training, experiment = {}, {}, None
    for item, state in zip(items, states, strict=True):
        scores = read_cell_scores(tracker, str(state.run_id), corpus, "best") if state.state == "COMPLETE" else None
        if scores is not None:
            fold = int(item.tags.get("fold", 0))
            experiment = Experiment.parse(item.experiment, item.name)
            cells[int(item.tags["seed"]), fold] = scores
            training[fold] = experiment.data.split.assign(corpus).train
    if experiment is None:
        return ()
    return judge_cells(cells, training, corpus, experiment.training.metric, experiment.flatten()).lines


def summarise(states: Sequence[RunState]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over runs, of the best epoch's and of the last epoch's metrics."""
    out = {}
    for prefix, part in (("best", "metrics"), ("last", "last")):
        for key in getattr(states[0], part):
            values = [getattr(s, part)[key] for s in states if key in getattr(s, part)]
            finite = all(map(math.isfinite, values))  # d' of perfect scores is infinite, and has no spread
            spread = statistics.stdev(values) if finite and len(values) > 1 else 0.0 if finite else math.nan
            out[f"{prefix}/{key}"] = statistics.fmean(values), spread
    return out
