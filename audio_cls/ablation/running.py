"""Running a suite: its runs in MLflow opened, its cells filled, its figures written back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite

from audio_cls.ablation.contract import Plan
from audio_cls.ablation.declaration import Ablation
from audio_cls.ablation.filling import Filled, fill_cells, unfinished
from audio_cls.ablation.looks import begin_looks
from audio_cls.ablation.record import read_records
from audio_cls.ablation.results import SuiteResult
from audio_cls.ablation.stored import (
    store_state,
    suite_work,
)
from audio_cls.ablation.suite import Suite, results, suite_cells, tuned
from audio_cls.ablation.tuning import tune_arms
from audio_cls.core.formatting import count
from audio_cls.core.notices import say
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.base import plain_name
from audio_cls.metrics.baselines import BASELINE
from audio_cls.metrics.classification import check_metric
from audio_cls.queue.cells import Cell, begun_rules, read_cells
from audio_cls.queue.options import QueueOptions
from audio_cls.queue.storage import load_study, open_storage, study_names
from audio_cls.runs.own_parts import remember, sources_of
from audio_cls.runs.weighting import settings_that_weigh, weighting_warning
from audio_cls.tracking import Run
from audio_cls.tracking.suites import arm_colours, arm_figures
from audio_cls.training.rules import FORMER, corrections, former_note

__all__ = ["SuiteOutcome", "ascending", "log_result", "run_suite", "start_suite"]


@dataclass(frozen=True)
class SuiteOutcome:
    """The result of running a suite: its cells, and its results by each metric, the first one first."""

    suite: Suite
    filled: Filled
    results: list[SuiteResult] = field(default_factory=list)


def run_suite(suite: Suite, options: QueueOptions, *, retry: bool = False) -> SuiteOutcome:
    """Search for each arm where the suite says so, train the cells that are missing, and record the figures of arms and suite.

    With `retry` cells that failed are trained again.

    Raises:
        Interrupted: when asked to leave before all cells are done; the same call continues.
    """
    if suite.storage is None:
        suite = replace(suite, storage=open_storage(options.storage or suite.workspace.optuna_db))
    if suite.ablation.tune is not None:
        suite = tune_arms(suite, options)
    _warn(suite)
    parent, arms = start_suite(suite)
    assert suite.storage is not None
    cells = suite_cells(suite)
    failed = _failed(suite, cells) if retry else []
    filled = fill_cells(
        suite_work(suite.state), cells, suite.tracker, suite.storage, options, again=failed, files=suite.files
    )
    if filled.interrupted:  # whoever asked to leave waits for no statistics
        _leave(suite, filled, parent, arms)
    summed = results(suite)
    for result in summed:
        log_result(result, arms)
    for arm in summed[0].arms:
        arms[arm.name].finish("COMPLETE" if arm.done == arm.planned else "INTERRUPTED")
    left, total = filled.left, len(cells)
    n_failed = sum(state.state == "FAILED" for state in filled.states)
    parent.final({"final/runs": float(total - left), "final/failed": float(n_failed)})
    parent.finish("INTERRUPTED" if left else "COMPLETE", f"{total - left} of {total} runs" if left else "")
    suite.tracker.flush()
    return SuiteOutcome(suite, filled, summed)


def arm_warnings(ablation: Ablation, plan: Plan, corpus: Corpus) -> list[str]:
    """Return the warnings of arms that weigh classes twice where the base, which is warned of with the suite, does not."""
    of_base, lines = settings_that_weigh(ablation.base), []
    first = {planned.arm: planned for planned in reversed(plan.cells)}
    for arm, planned in reversed(first.items()):
        if settings_that_weigh(planned.experiment) == of_base:
            continue
        if warning := weighting_warning(planned.experiment, corpus):
            lines.append(f"arm {arm}: {warning}")
    return lines


def _warn(suite: Suite) -> None:
    """Say what is doubtful in the arms, and that the suite goes on by former training rules, where that changes a run."""
    first = {planned.arm: planned for planned in reversed(suite.plan.cells)}
    for line in arm_warnings(suite.ablation, suite.plan, suite.corpus):
        say(line, err=True)
    if suite.ablation.folds is None:
        kind, n_seeds = suite.ablation.base.data.split.kind, len(tuple(suite.ablation.seeds))
        say(
            f"data.split={kind} has no folds: {count(n_seeds, 'run')} an arm, one for each seed, on one and the same split"
        )
    assert suite.storage is not None
    begun = suite.study in study_names(suite.storage, None)
    cells = read_cells(load_study(suite.study, suite.storage)) if begun else []
    if begun_rules(cell.record for cell in cells) == FORMER:
        missing = [corrections(planned.experiment, planned.n_train) for planned in first.values()]
        if found := ", ".join(sorted({word for text in missing for word in text.split(", ") if word})):
            say(former_note(f"suite {suite.ablation.name}", found, "a suite of another name"))


def _failed(suite: Suite, cells: list[Cell]) -> list[str]:
    """Return the ids of the cells that failed."""
    records = read_records(suite.ablation, suite.plan, suite.study, suite.storage)
    return [cell.id for cell, record in zip(cells, records, strict=True) if record.state == "FAILED"]


def _leave(suite: Suite, filled: Filled, parent: Run, arms: dict[str, Run]) -> None:
    """End the suite's runs as they are, and leave."""
    undone = [state.params["arm"] for state in filled.states if state.state not in ("COMPLETE", "FAILED")]
    for name, run in arms.items():
        run.finish("INTERRUPTED" if name in undone else "COMPLETE")
    left, total = filled.left, len(filled.states)
    parent.finish("INTERRUPTED", f"{total - left} of {total} runs")
    suite.tracker.flush()
    hint = f"what there is so far: audio-cls ablate report {suite.ablation.name}" if left < total else ""
    raise unfinished(filled, hint)


def start_suite(suite: Suite) -> tuple[Run, dict[str, Run]]:
    """Open, or resume, the suite's run in MLflow and one run for each arm below it; their ids are kept with the suite."""
    from audio_cls.runs.preparation import dataset_info

    ablation, state, corpus, tracker = suite.ablation, suite.state, suite.corpus, suite.tracker
    assert suite.storage is not None
    whole = tuned(ablation, state)
    sources = [source for arm in ablation.arms for source in sources_of(whole.arm(arm))]
    remember(suite.workspace, sources)
    state.sources = list(dict.fromkeys([*state.sources, *(source.digest for source in sources)]))
    dataset = dataset_info(corpus)
    tracker.experiment(suite.experiment_name)
    base = {"ablation.suite": ablation.name, "ablation.arm": "none"}
    tags = {
        "ablation.suite": ablation.name,
        "ablation.reference": ablation.reference,
        "ablation.metric": ablation.metrics[0],
        "data.digest": corpus.digest,
        **(suite.resolved.tags if suite.resolved else {}),
    }
    colours = arm_colours(list(ablation.arms))
    terms = "; ".join(f"{k}: {v}" for k, v in suite.plan.terms)
    runs: dict[str, Run] = {}

    def open_runs() -> Run:
        """Runs alone among all machines, so that a run that another one has made is resumed."""
        parent = tracker.on(dataset).start(
            suite.experiment_name, f"suite {ablation.name}", kind="suite", params={**ablation.base.flatten(), **base},
            tags={**tags, "runs": str(len(suite.plan.cells)), "contract": terms}, run_id=state.run_id,
        )  # fmt: skip
        if state.run_id is None:
            assert suite.storage is not None
            begin_looks(suite.study, suite.storage)
            if suite.file is not None:
                parent.artifact(suite.file, "source")
        state.run_id = parent.id
        for arm in ablation.arms:
            params = {**whole.arm(arm).flatten(), **base, "ablation.arm": arm}
            runs[arm] = tracker.on(dataset).start(
                suite.experiment_name, arm, kind="arm", parent=parent.id, params=params,
                tags={**tags, "ablation.arm": arm, **colours[arm]}, run_id=state.arms.get(arm),
            )  # fmt: skip
            state.arms[arm] = runs[arm].id
        return parent

    return store_state(state, suite.storage, open_runs), runs


def log_result(result: SuiteResult, runs: dict[str, Run]) -> None:
    """Write each arm's figures and verdict to its run."""
    names = arm_figures(plain_name(result.metric))
    for arm in result.arms:
        if arm.name not in runs:
            continue
        figures = {"mean": arm.mean.mean, "std": arm.mean.sd, "low": arm.mean.low, "high": arm.mean.high}
        figures["n"] = float(arm.done)
        if arm.comparison is not None and arm.verdict is not None:
            verdict = arm.verdict
            figures |= {"difference": arm.comparison.mean, "p": verdict.p}
            figures |= {"difference_low": verdict.low, "difference_high": verdict.high}
            figures |= {"better": verdict.better, "within": verdict.within, "worse": verdict.worse}
            if arm.wider is not None:
                figures |= {"wider_p": arm.wider.p, "wider_low": arm.wider.low, "wider_high": arm.wider.high}
        run = runs[arm.name]
        run.final({names[k]: round(v, 4) for k, v in figures.items() if isfinite(v)})  # shown as they are written
        plain = plain_name(result.metric)
        if plain in result.baseline:
            run.final({f"{BASELINE}{plain}": round(result.baseline[plain], 4)})
        if result.metric == result.ablation.metrics[0]:
            costs = {
                "train_seconds": arm.seconds,
                "samples_per_second": arm.samples_per_second,
                "parameters": arm.parameters,
            }
            run.final({f"final/{k}": v for k, v in costs.items() if isfinite(v)})
            of_reference = f"the reference; {arm.collapsed.text}" if arm.collapsed else "the reference"
            run.tags({"verdict": arm.verdict.text if arm.verdict else of_reference})


def ascending(result: SuiteResult) -> bool:
    """Whether less is better."""
    return check_metric(result.metric) == "minimize"
