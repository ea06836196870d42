"""A search run to a total of finished configurations: its workers, its run in MLflow, its saved views and page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from audio_cls.core.device import choose_device, tune_process
from audio_cls.core.notices import progress, say
from audio_cls.core.stopping import StopRequest, Watch
from audio_cls.core.workspace import Workspace
from audio_cls.metrics.published import stored_published
from audio_cls.queue.options import QueueOptions
from audio_cls.queue.seam import Outcome, TrialContext
from audio_cls.queue.status import PUBLISHED, StudyStatus, searched_keys, study_status
from audio_cls.queue.storage import open_storage
from audio_cls.queue.supervisor import run_workers
from audio_cls.queue.tracked import settle_runs
from audio_cls.queue.worker import Shift, run_worker
from audio_cls.runs.model_log import log_models
from audio_cls.runs.own_parts import load_with
from audio_cls.runs.page_data import page_path, write_page
from audio_cls.runs.preparation import Runtime, mlflow_experiment
from audio_cls.runs.resolve import announce, resolve
from audio_cls.study.grid import enqueue_rows, planned_trials
from audio_cls.study.launches import Launch, record_launch
from audio_cls.study.losses import space_warning
from audio_cls.study.opening import PARENT, OpenedSearch, declared_study, open_parts, work_target
from audio_cls.study.page_data import study_page
from audio_cls.study.search import check_study, open_parent, study_identity, trial_objective
from audio_cls.tracking import Tracker
from audio_cls.training.rules import RULES, former_note

if TYPE_CHECKING:
    from audio_cls.study.declaration import Study
    from audio_cls.tracking import Run

__all__ = ["SearchOutcome", "run_search", "runs_to_log"]


@dataclass(frozen=True)
class SearchOutcome:
    """How a search stands when its workers have left.

    Attributes:
        status: of its configurations.
        done: whether all that was asked for is finished.
        links: of the saved views in MLflow's UI, by title.
        page: its report; None if the search is not done, or the report failed.
        problem: why the report failed.
    """

    status: StudyStatus
    done: bool
    links: Mapping[str, str] = field(default_factory=dict)
    page: Path | None = None
    problem: str = ""


def run_search(
    workspace: Workspace,
    launch: Launch,
    trials: int | None,
    options: QueueOptions,
    *,
    only: Collection[int] | None = None,
    new_version: bool = False,
    parts: Sequence[Path] = (),
) -> SearchOutcome:
    """Run a search until `trials` configurations are finished, or this process is asked to leave; the same call continues.

    Args:
        trials: of a grid, all its rows unless given.
        only: run these configurations alone.
        new_version: where the declaration has changed, begin a new version of the study.
        parts: files that the workers load first.

    Raises:
        UserError: for a declaration that does not fit its corpus, or has changed since the study started.
    """
    trials = planned_trials(declared_study(launch), trials) if only is None else trials or 1
    search = open_parts(workspace, launch, options.storage, new_version)
    study, corpus, opened = search.study, search.corpus, search.opened
    for line in search.said:
        say(line)
    if study.settled is not None:
        announce(resolve(check_study(declared_study(launch)), corpus, rules=study.settled.rules), corpus)
    if warning := space_warning(study):
        say(warning, err=True)
    if missing := _missing_corrections(study):
        say(former_note(f"study {study.name}", missing, "study run --new-version"))
    record_launch(workspace, opened, launch)
    if (published := stored_published(tuple(study.published))) != opened.user_attrs.get(PUBLISHED, []):
        opened.set_user_attr(PUBLISHED, published)
    if launch.study is None:
        load_with(workspace, [launch.file])  # it was loaded above; remembered now, also if no trial is left to run
    tracker = Tracker(workspace)
    tracker.flush()
    parent = _open_run(workspace, tracker, search, launch.file)
    if not study.drawn and only is None:
        enqueue_rows(study, opened, open_storage(options.storage or workspace.optuna_db), trials)
    if launch.study is not None and options.workers == 1:
        status = _work_here(search, trials, options, tracker, launch.file)
    else:
        target = work_target(launch, study.name, parts)
        status = run_workers(study, workspace, trials, target, options, identity=study_identity(corpus), only=only)
    settle_runs(tracker, mlflow_experiment(corpus), opened)
    log_models(tracker, runs_to_log(status, options))
    wanted = [row for row in status.rows if only is None or row.config in only]
    done = status.finished >= trials if only is None else all(r.state not in ("RUNNING", "WAITING") for r in wanted)
    parent.final(_figures(status))
    parent.finish("COMPLETE" if done else "INTERRUPTED", "" if done else f"{status.finished} of {trials} finished")
    ascending = study.direction == "minimize"
    experiment, keys = mlflow_experiment(corpus), searched_keys(status)
    links = tracker.saved_views(experiment, study.name, study.metric, keys, ascending=ascending)
    tracker.flush()
    page, problem = _write_page(tracker, study.name, options.storage) if done else (None, "")
    return SearchOutcome(status, done, links, page, problem)


def _missing_corrections(study: Study) -> str:
    """Return what the present training rules would correct in the base of a study that goes on by former ones."""
    settled = study.settled
    if settled is None:
        return ""
    present = settled.corrected(study.base, RULES)
    return "" if settled.corrected(study.base, settled.training) == present else present


def _work_here(search: OpenedSearch, trials: int, options: QueueOptions, tracker: Tracker, file: Path) -> StudyStatus:
    """Be the worker of a search oneself, in the program that declares it. Returns how the search stands then."""
    study, opened = search.study, search.opened
    tune_process()
    with StopRequest(grace=options.grace_seconds) as stop, progress(study.name) as show:
        runtime = Runtime(tracker.workspace, tracker, choose_device(options.device), watch=Watch(stop, show.phase))
        runtime.keep(check_study(study).data, search.corpus)
        objective = trial_objective(runtime, study, opened.user_attrs.get(PARENT), file)

        def shown(context: TrialContext) -> Outcome:
            status = study_status(opened, trials)
            best = "" if status.best is None else f", best {status.metric} {status.best.value:.4f}"
            show(status.finished, trials, f"configurations{best}")
            return objective(context)

        run_worker(
            study, tracker.workspace.root, trials, shown, options,
            identity=study_identity(search.corpus), shift=Shift(stop=stop),
        )  # fmt: skip
        status = study_status(opened, trials)
        show(status.finished, trials, "configurations")
    return status


def _open_run(workspace: Workspace, tracker: Tracker, search: OpenedSearch, file: Path) -> Run:
    """Open the study's run in MLflow, the same one for every process that runs the study."""
    opened = search.opened
    with workspace.lock(f"study-{search.study.name}-run"):
        parent = open_parent(tracker, search.study, search.corpus, file, opened.user_attrs.get(PARENT))
        if opened.user_attrs.get(PARENT) != parent.id:
            opened.set_user_attr(PARENT, parent.id)
    return parent


def runs_to_log(status: StudyStatus, options: QueueOptions) -> list[str]:
    """Return the ids of the runs that become models in MLflow."""
    best = [status.best] if status.best is not None else []
    complete = [row for row in status.rows if row.state == "COMPLETE"]
    rows = {"none": [], "best": best, "all": complete}[options.log_model]
    return [str(row.record.mlflow_run_id) for row in rows if row.record.mlflow_run_id]


def _figures(status: StudyStatus) -> dict[str, float]:
    """Return the figures of a study's run."""
    figures: dict[str, float] = {
        "final/finished": status.finished,
        "final/complete": status.complete,
        "final/pruned": status.pruned,
        "final/failed": sum(status.failed.values()),
    }
    if status.revived:
        figures |= {"final/revived": status.revived, "final/revived_overtook": status.overtook}
    if status.best is not None and status.best.value is not None:
        figures[f"best/{status.metric.removeprefix('val/')}"] = status.best.value
    return figures


def _write_page(tracker: Tracker, name: str, storage: str | Path | None) -> tuple[Path | None, str]:
    """Write the study's page and log it to MLflow. Whatever is wrong with it costs the study nothing: it is returned as text."""
    try:
        run_id, page = study_page(tracker.workspace, name, storage, tracker)
        return write_page(tracker, page_path(tracker.workspace, f"study-{name}"), page, run_id).path, ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
