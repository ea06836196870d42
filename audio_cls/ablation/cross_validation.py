"""`train --folds --seeds`: a suite of one arm, its figures averaged over runs and its predictions pooled over folds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.ablation.answers import judge_cells
from audio_cls.ablation.filling import Filled, cell_name, fill_cells, unfinished, why_failed
from audio_cls.ablation.predictions import log_out_of_fold
from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.data.remarks import REMARKS, recorded_remarks
from audio_cls.experiment import Experiment
from audio_cls.metrics.base import figure_text, plain_name
from audio_cls.metrics.baselines import BASELINE
from audio_cls.metrics.classification import check_metric
from audio_cls.queue.cells import Cell, Cells, CellState, read_cells
from audio_cls.queue.record import experiment_text
from audio_cls.queue.storage import open_storage, open_study
from audio_cls.queue.work import Kind
from audio_cls.runs.folds import FOLDS_CSV, FoldFigures, asked_folds, fold_csv, fold_figures, fold_label, grid_text
from audio_cls.runs.preparation import check_fits, dataset_info, mlflow_experiment
from audio_cls.runs.resolve import resolve
from audio_cls.runs.scores import read_predictions
from audio_cls.runs.single import read_state, run_folder, run_key, run_name
from audio_cls.study.opening import PARENT

if TYPE_CHECKING:
    import pandas as pd

    from audio_cls.queue.options import QueueOptions
    from audio_cls.runs.resolve import Resolved
    from audio_cls.tracking import Run, Tracker

__all__ = ["CrossValidation", "FoldsOutcome", "cross_validate", "plan_cross_validation", "summarise"]

KIND: Kind = "folds"
ARM = "all"  # the only one


@dataclass(frozen=True)
class CrossValidation:
    """An experiment at several folds and seeds. cells: those asked for. resolved: what was left to the data. size: in words."""

    name: str
    experiment: Experiment
    corpus: Corpus
    cells: tuple[Cell, ...]
    resolved: Resolved
    folds: bool
    size: str

    @property
    def work(self) -> Cells:
        """Its Optuna study. Named by what is run, so that the same command with more folds or seeds adds to it."""
        key = run_key(self.experiment.digest(), self.corpus.digest)
        metric = self.experiment.training.metric
        over = "folds" if self.folds else "seeds"
        name = f"{KIND}:{self.experiment.model.kind}-{over}-{key}"
        return Cells(name, KIND, metric, check_metric(metric), {"data": self.corpus.digest})


@dataclass(frozen=True)
class FoldsOutcome:
    """The result of a cross-validation.

    complete: its complete runs, those of earlier commands among them; failed: (name, reason). summary: metric of the best or last
    epoch -> (mean, standard deviation) over them. baseline: metric -> figure of a model that learned nothing. findings: what is
    wrong with the predictions; remarks: what a reader of the figures must know of the splits. by_fold: figures of each fold.
    pooled: figures of the out-of-fold predictions.
    """

    filled: Filled
    complete: tuple[CellState, ...]
    failed: tuple[tuple[str, str], ...]
    summary: dict[str, tuple[float, float]] = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    by_fold: tuple[FoldFigures, ...] = ()
    pooled: dict[str, float] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """A row for each metric of the best and of the last epoch: mean and standard deviation over the complete runs."""
        import pandas as pd

        return pd.DataFrame.from_dict(self.summary, orient="index", columns=["mean", "sd"])

    def _repr_html_(self) -> str:
        return f"<p>{len(self.complete)} runs complete, {len(self.failed)} failed</p>" + self.table().to_html()


def plan_cross_validation(
    experiment: Experiment, corpus: Corpus, folds: str | None, seeds: int, name: str | None = None
) -> CrossValidation:
    """Return the runs of an experiment over folds and seeds, once it is certain that they can be made.

    Args:
        folds: `all`, numbers or names of groups with commas between; None for the split as it is.
        seeds: how many for each fold, counted up from the experiment's.

    Raises:
        UserError: for a split without folds, a fold that is not there, or an experiment that does not fit the corpus.
    """
    if folds is not None or seeds > 1:
        experiment.data.refuse_overfit("a cross-validation")
    resolved = resolve(experiment, corpus)
    experiment = resolved.experiment
    name = run_name(experiment, name)
    fold_key, values = asked_folds(experiment, corpus, folds)
    names = experiment.data.split.folds(corpus) if fold_key else {}
    cells: list[Cell] = []
    for fold in values:
        for seed in range(experiment.seed, experiment.seed + seeds):
            changes: dict[str, Any] = {"seed": seed}
            label, tags = name, {"seed": str(seed)}
            if fold is not None:
                changes[str(fold_key)] = fold
                label, tags["fold"] = f"{label} {fold_label(fold, names[fold])}", str(fold)
            if seeds > 1:
                label = f"{label} seed {seed}"
            one = experiment.override(changes)
            if cells:
                one.data.assign(corpus)
            else:
                check_fits(one, corpus)
            key = run_key(one.digest(), corpus.digest)
            cells.append(
                Cell(
                    {"arm": ARM, "seed": seed, "fold": fold or 0},
                    one,
                    key,
                    label,
                    {**tags, **resolved.tags},
                    former=key,
                )
            )
    size = grid_text(folds=len(values), seeds=seeds) if fold_key else grid_text(seeds=seeds)
    return CrossValidation(name, experiment, corpus, tuple(cells), resolved, bool(fold_key), size)


def cross_validate(
    plan: CrossValidation, tracker: Tracker, options: QueueOptions, *, again: bool = False, files: Sequence[Path] = ()
) -> FoldsOutcome:
    """Train the runs that are missing, or all of them `again`, and record the figures of all below one run in MLflow.

    Raises:
        Interrupted: when asked to leave before all are done; the same call continues.
    """
    storage = open_storage(options.storage or tracker.workspace.optuna_db)
    work = plan.work
    opened = open_study(work, storage)
    with storage.lock(work.name):
        parent = _open_parent(plan, tracker, opened.user_attrs.get(PARENT))
        opened.set_user_attr(PARENT, parent.id)
    if not again:
        _check_splits(plan, read_cells(opened))
    cells = [replace(cell, parent=parent.id) for cell in plan.cells]
    filled = fill_cells(
        work, cells, tracker, storage, options, again=[c.id for c in cells] if again else [], files=files
    )
    if filled.interrupted:
        parent.finish("INTERRUPTED", f"{filled.left} of {len(cells)} runs are left")
        tracker.flush()
        raise unfinished(filled)
    asked = {state.id for state in filled.states}
    complete = [state for state in filled.states if state.state == "COMPLETE"]
    complete += [s for s in read_cells(opened) if s.state == "COMPLETE" and s.id not in asked]
    outcome = _sum_up(plan, filled, complete, parent, tracker)
    parent.finish(
        "INTERRUPTED" if filled.left else "FAILED" if outcome.failed and not complete else "COMPLETE",
        "; ".join(filled.refused),
    )
    tracker.flush()
    return outcome


def _check_splits(plan: CrossValidation, states: Sequence[CellState]) -> None:
    """Refuse to join runs whose folds were others: identical clips may have been on two sides of theirs.

    Raises:
        UserError: naming the first such run.
    """
    if not plan.corpus.identical:
        return
    for state in states:
        recorded = state.record.facts.get("split.digest")
        if recorded and _experiment(state).data.assign(plan.corpus).digest != recorded:
            raise UserError(
                f"{plan.name}: {cell_name(state)} was trained when identical clips were not kept on one side of the split: its folds "
                "are others than those now. Train all of them anew: --again"
            )


def _open_parent(plan: CrossValidation, tracker: Tracker, run_id: str | None) -> Run:
    if run_id is None:  # of earlier versions
        key = f"{run_key(plan.experiment.digest(), plan.corpus.digest)}-grid{len(plan.cells)}"
        run_id = read_state(run_folder(tracker.workspace, key)).run_id
    return tracker.on(dataset_info(plan.corpus)).start(
        mlflow_experiment(plan.corpus), plan.name, parent=None, kind="cross-validation", params=plan.experiment.flatten(),
        tags={"runs": str(len(plan.cells)), "data.digest": plan.corpus.digest, **plan.resolved.tags},
        run_id=run_id,
    )  # fmt: skip


def _sum_up(
    plan: CrossValidation, filled: Filled, complete: list[CellState], parent: Run, tracker: Tracker
) -> FoldsOutcome:
    """Compute the figures over the complete runs, and record them with the parent."""
    failed = tuple((cell_name(s), why_failed(s)) for s in filled.states if s.state == "FAILED")
    if not complete:
        return FoldsOutcome(filled, (), failed)
    summary, baseline = summarise(complete), _mean_baseline(complete)
    parent.final({f"mean/{k}": m for k, (m, _) in summary.items()} | {f"std/{k}": s for k, (_, s) in summary.items()})
    parent.final({f"{BASELINE}{k}": v for k, v in baseline.items()})
    findings = (*_collapsed(plan, complete), *_judge(plan, complete, tracker))
    parent.tags({"findings": " ".join(findings) or "none"})
    remarks = tuple(dict.fromkeys(remark for s in complete for remark in recorded_remarks(s.record.facts)))
    for key in REMARKS:
        if said := {str(s.record.facts[key]) for s in complete if s.record.facts.get(key)}:
            parent.tags({key: "; ".join(sorted(said))})
    by_fold: list[FoldFigures] = []
    pooled: dict[str, float] = {}
    if plan.folds:
        by_fold = fold_figures([_of_fold(state) for state in complete])
        parent.artifact_text(FOLDS_CSV, fold_csv(by_fold))
        cells = {(_seed(s), _fold(s)): str(s.record.mlflow_run_id) for s in complete}
        folds = {fold for _, fold in cells} | {_fold(s) for s in filled.states}
        whole = {c: run for c, run in cells.items() if all((c[0], fold) in cells for fold in folds)}
        pooled = log_out_of_fold(parent, tracker, whole, plan.corpus) if whole else {}
    return FoldsOutcome(filled, tuple(complete), failed, summary, baseline, findings, remarks, tuple(by_fold), pooled)


def _seed(state: CellState) -> int:
    return int(state.params["seed"])


def _fold(state: CellState) -> int:
    return int(state.params["fold"])


def _of_fold(state: CellState) -> tuple[int, str, dict[str, float], dict[str, float]]:
    record, fold = state.record, _fold(state)
    return fold, record.facts.get("split.fold_name", str(fold)), dict(record.metrics), dict(record.last)


def _mean_baseline(states: Sequence[CellState]) -> dict[str, float]:
    """Average the figures of a model that learned nothing over the runs, where all have them."""
    keys = [key for key in states[0].record.baseline if all(key in s.record.baseline for s in states)]
    return {key: statistics.fmean(s.record.baseline[key] for s in states) for key in keys}


def _judge(plan: CrossValidation, complete: Sequence[CellState], tracker: Tracker) -> tuple[str, ...]:
    """Return what is wrong with the predictions of the runs together, in sentences."""
    cells, training = {}, {}
    for state in complete:
        scores = read_predictions(tracker, str(state.record.mlflow_run_id), plan.corpus, "best")
        if scores is not None:
            cells[_seed(state), _fold(state)] = scores
            if _fold(state) not in training:
                training[_fold(state)] = _experiment(state).data.assign(plan.corpus).train
    if not cells:
        return ()
    experiment = _experiment(complete[-1])
    return judge_cells(cells, training, plan.corpus, experiment.training.metric, experiment.flatten()).lines


def _collapsed(plan: CrossValidation, complete: Sequence[CellState]) -> tuple[str, ...]:
    """Return the sentence that counts the runs that have collapsed, with the mean with and without them; empty without such."""
    metric = plan.experiment.training.metric
    plain = plain_name(metric)
    rest = [s for s in complete if "best" not in s.record.collapsed]
    gone = [s for s in complete if "best" in s.record.collapsed]
    if not gone:
        return ()
    said = f"{len(gone)} of {len(complete)} runs collapsed ({cell_name(gone[0])}: {gone[0].record.collapsed['best']})"
    mean = figure_text(summarise(complete)[f"best/{plain}"][0], metric)
    without = f", {figure_text(summarise(rest)[f'best/{plain}'][0], metric)} without" if rest else ""
    return (f"{said}: mean {metric} {mean} with them{without}.",)


def _experiment(state: CellState) -> Experiment:
    return Experiment.from_json(experiment_text(state.record.experiment), cell_name(state))


def summarise(states: Sequence[CellState]) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation over runs, of the best epoch's and of the last epoch's metrics."""
    out = {}
    for prefix, part in (("best", "metrics"), ("last", "last")):
        for key in getattr(states[0].record, part):
            values = [getattr(s.record, part)[key] for s in states if key in getattr(s.record, part)]
            finite = all(map(math.isfinite, values))  # d' of perfect scores is infinite, and has no spread
            spread = statistics.stdev(values) if finite and len(values) > 1 else 0.0 if finite else math.nan
            out[f"{prefix}/{key}"] = statistics.fmean(values), spread
    return out
