"""Running a suite: its runs in MLflow opened, its grid filled, its figures written back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from audio_cls.ablation.answers import amend, read_answers
from audio_cls.ablation.contract import Plan, check_plan, check_records
from audio_cls.ablation.declaration import Ablation
from audio_cls.ablation.record import (
    SuiteState,
    grid_items,
    join_suite,
    openings,
    read_records,
    read_suite,
    restore,
    suite_rules,
    write_suite,
)
from audio_cls.ablation.results import SuiteResult, summarise
from audio_cls.ablation.settling import settle
from audio_cls.core.errors import UserError
from audio_cls.core.stopping import GRACE_SECONDS
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.baselines import BASELINE
from audio_cls.metrics.classification import check_metric
from audio_cls.runs.grid import RunState, item_folder, read_state, run_grid
from audio_cls.runs.own_parts import remember, sources_of
from audio_cls.runs.resolve import Resolved
from audio_cls.tracking import DatasetInfo, Run, Tracker
from audio_cls.tracking.suites import arm_colours, arm_figures

__all__ = ["Suite", "fill", "log_result", "open_suite", "reopen_suite", "results", "start_suite"]


@dataclass(frozen=True)
class Suite:
    """A suite at hand: its declaration (with every seed ever asked for), its cells, and where it is recorded."""

    ablation: Ablation
    plan: Plan
    corpus: Corpus
    state: SuiteState
    workspace: Workspace
    tracker: Tracker
    resolved: Resolved | None = None  # what the base left to the data, of a suite that is run

    @property
    def experiment_name(self) -> str:
        from audio_cls.runs.preparation import mlflow_experiment

        return mlflow_experiment(self.corpus)


def open_suite(ablation: Ablation, workspace: Workspace, tracker: Tracker, file: Path, device: str) -> Suite:
    """The suite of a declaration, checked before anything is trained; nothing is written.

    Raises:
        UserError: for a declaration, plan or record that breaks the contract, naming the difference.
    """
    from audio_cls.core.device import choose_device
    from audio_cls.runs.preparation import check_fits, open_corpus

    corpus = open_corpus(workspace, ablation.base.data.corpus)
    ablation, resolved = settle(ablation, corpus, suite_rules(workspace, ablation.name))
    state = join_suite(ablation, workspace, corpus, file)
    grown: Any = {"seeds": state.seeds, "folds": state.folds, "arms": state.identity["arms"]}
    ablation = replace(ablation, **grown)
    plan = check_plan(tuned(ablation, state), corpus, choose_device(device))  # again after a search
    if state.run_id is None:
        for planned in {p.arm: p for p in reversed(plan.cells)}.values():
            check_fits(planned.experiment, corpus)
    records = read_records(ablation, plan, corpus, workspace, tracker if state.run_id else None)
    check_records(ablation, plan, records)
    opened = openings(records)
    if opened and not all(r.done for r in records):
        raise UserError(
            f"the suite {ablation.name!r} cannot grow: its test split has been opened ({opened[0]}), and what is run from now on "
            "may be chosen by what it showed. Start another suite under another name"
        )
    return Suite(ablation, plan, corpus, state, workspace, tracker, resolved)


def reopen_suite(name: str, workspace: Workspace, tracker: Tracker) -> Suite:
    """A suite by its name, as it was declared, to report on.

    Raises:
        UserError: for a suite that is not there, or whose corpus has gone or changed.
    """
    from audio_cls.runs.own_parts import recorded
    from audio_cls.runs.preparation import open_corpus

    state = read_suite(workspace, name)
    files = [Path(state.file)] if state.file else []
    ablation, full = recorded(lambda: _restored(state), workspace, state.sources, files, f"suite {name}")
    corpus = open_corpus(workspace, state.corpus)
    if corpus.digest != state.data:
        raise UserError(
            f"not comparable: the corpus {corpus.name!r} has digest {corpus.digest[:16]}, the suite {name!r} was run on {state.data[:16]}"
        )
    ablation, full = (settle(made, corpus, state.data_rules)[0] for made in (ablation, full))
    return Suite(ablation, check_plan(full, corpus), corpus, state, workspace, tracker)


def _restored(state: SuiteState) -> tuple[Ablation, Ablation]:
    """The declaration as it was stored, and with what the arms' searches found; each arm parses."""
    ablation = restore(state)
    full = tuned(ablation, state)
    for arm in full.arms:
        full.arm(arm)
    return ablation, full


def tuned(ablation: Ablation, state: SuiteState) -> Ablation:
    """The declaration with what each arm's own search has found, which joins what the arm declares."""
    if not state.tuned:
        return ablation
    arms = {arm: {**changes, **state.tuned.get(arm, {})} for arm, changes in ablation.arms.items()}
    return replace(ablation, arms=arms)


def results(suite: Suite) -> list[SuiteResult]:
    """Sum up the suite by each of its metrics, the first one first, once its records have passed the contract."""
    records = read_records(suite.ablation, suite.plan, suite.corpus, suite.workspace, suite.tracker)
    check_records(suite.ablation, suite.plan, records)
    answers = read_answers(suite.ablation, suite.plan, records, suite.corpus, suite.tracker)
    summed = [summarise(suite.ablation, suite.plan, records, metric) for metric in suite.ablation.metrics]
    return [amend(result, answers, suite.corpus) for result in summed]


def start_suite(suite: Suite, file: Path) -> tuple[Run, dict[str, Run]]:
    """Open, or take up, the suite's run in MLflow and one run for each arm below it; their ids are kept with the suite."""
    ablation, state, corpus, tracker = suite.ablation, suite.state, suite.corpus, suite.tracker
    dataset = DatasetInfo(
        corpus.name, corpus.digest, corpus.task, len(corpus), tuple(corpus.classes), str(corpus.directory)
    )
    tracker.experiment(suite.experiment_name)
    base = {"ablation.suite": ablation.name, "ablation.arm": "none"}
    tags = {
        "ablation.suite": ablation.name,
        "ablation.reference": ablation.reference,
        "ablation.metric": ablation.metrics[0],
        "data.digest": corpus.digest,
        **(suite.resolved.tags if suite.resolved else {}),
    }
    planned = str(len(suite.plan.cells))
    parent = tracker.start(
        suite.experiment_name, f"suite {ablation.name}", kind="suite", params={**ablation.base.flatten(), **base},
        tags={**tags, "runs": planned, "contract": "; ".join(f"{k}: {v}" for k, v in suite.plan.terms)}, dataset=dataset, run_id=state.run_id,
    )  # fmt: skip
    if state.run_id is None:
        parent.artifact(file, "source")
    state.run_id = parent.id
    runs = {}
    whole, colours = tuned(ablation, state), arm_colours(list(ablation.arms))
    for arm in ablation.arms:
        params = {**whole.arm(arm).flatten(), **base, "ablation.arm": arm}
        runs[arm] = tracker.start(
            suite.experiment_name, arm, kind="arm", parent=parent.id, params=params,
            tags={**tags, "ablation.arm": arm, **colours[arm]},
            dataset=dataset, run_id=state.arms.get(arm),
        )  # fmt: skip
        state.arms[arm] = runs[arm].id
    sources = [source for arm in ablation.arms for source in sources_of(whole.arm(arm))]
    remember(suite.workspace, sources)
    state.sources = list(dict.fromkeys([*state.sources, *(source.digest for source in sources)]))
    write_suite(suite.workspace, state)
    return parent, runs


def fill(
    suite: Suite,
    file: Path,
    *,
    workers: int,
    device: str,
    on_poll: Callable[[list[RunState], str], None],
    grace: float = GRACE_SECONDS,
) -> list[RunState]:
    """Train the cells that are not done; where all are, no worker is started."""
    items = grid_items(suite.ablation, suite.plan, suite.corpus, suite.state.arms)
    states = [read_state(item_folder(suite.workspace, item.key)) for item in items]
    if all(state.done for state in states):
        return states
    return run_grid(
        items, suite.workspace, workers=workers, parent=suite.state.run_id, kind="cell", device=device, files=[file],
        on_poll=on_poll, grace_seconds=grace,
    )  # fmt: skip


def log_result(result: SuiteResult, runs: dict[str, Run]) -> None:
    """Write each arm's figures and verdict to its run."""
    names = arm_figures(result.metric.rpartition("/")[2])
    for arm in result.arms:
        if arm.name not in runs:
            continue
        figures = {"mean": arm.mean.mean, "std": arm.mean.sd, "low": arm.mean.low, "high": arm.mean.high}
        figures["n"] = float(arm.done)
        if arm.comparison is not None and arm.verdict is not None:
            figures |= {"difference": arm.comparison.mean, "p": arm.verdict.p}
            figures |= {"difference_low": arm.comparison.low, "difference_high": arm.comparison.high}
        run = runs[arm.name]
        run.final({names[k]: round(v, 4) for k, v in figures.items() if isfinite(v)})  # shown as they are written
        plain = result.metric.rpartition("/")[2]
        if plain in result.baseline:
            run.final({f"{BASELINE}{plain}": round(result.baseline[plain], 4)})
        if result.metric == result.ablation.metrics[0]:
            run.final(
                {
                    f"final/{k}": v
                    for k, v in (
                        ("train_seconds", arm.seconds),
                        ("samples_per_second", arm.samples_per_second),
                        ("parameters", arm.parameters),
                    )
                    if isfinite(v)
                }
            )
            run.tags({"verdict": arm.verdict.text if arm.verdict else "the reference"})


def ascending(result: SuiteResult) -> bool:
    """Whether less is better."""
    return check_metric(result.metric) == "minimize"
