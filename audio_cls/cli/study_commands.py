"""What the `study` commands do: the study package, the objective and the tracker put together."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.cli.console import console, say, table
from audio_cls.core.config import parse_assignment
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import count
from audio_cls.core.interpreter import python_command
from audio_cls.core.workspace import Workspace
from audio_cls.runs.own_parts import load_with
from audio_cls.study.declaration import Study, load_study_file
from audio_cls.study.launches import Launch, find_launch, record_launch

if TYPE_CHECKING:
    from audio_cls.tracking import Tracker

STORAGE_VARIABLE = "AUDIO_CLS_STORAGE"
PARENT = "mlflow_run_id"  # user attribute of a study: its run in MLflow


def load_study(launch: Launch) -> Study:
    """The study that a file declares, its base changed by `--set`, under the name that it goes by."""
    study, _ = load_study_file(launch.file)
    changes = dict(parse_assignment(a) for a in launch.assignments)
    study = replace(study, base=study.base.override(changes)) if changes else study
    return replace(study, name=launch.name) if launch.name else study


def open_parts(
    workspace: Workspace, launch: Launch, storage: str | None, new_version: bool = False, announce: bool = False
) -> tuple[Study, Any, Any]:
    """The declaration under its version's name, settled on its corpus, that corpus, and the opened Optuna study.

    With `announce`, what was chosen from the data is printed.

    Raises:
        UserError: for a base that does not fit the corpus, before anything is created; and when the study was begun by another
            declaration, unless a `new_version` shall be begun then.
    """
    from audio_cls.cli.commands import say_resolved
    from audio_cls.queue.storage import open_storage, open_study
    from audio_cls.runs.preparation import check_fits, open_corpus
    from audio_cls.runs.resolve import resolve
    from audio_cls.study.carry_over import bring_checkpoints
    from audio_cls.study.search import check_study, settle_study, study_identity
    from audio_cls.study.versions import begin_version, resolve_version, stored_identity

    def settle(declared: Study, stored: Mapping[str, Any] | None) -> Study:
        return settle_study(declared, corpus, stored)

    declared = load_study(launch)
    corpus = open_corpus(workspace, check_study(declared).data.corpus)
    address, extra = storage or workspace.optuna_db, study_identity(corpus)
    if new_version or not _may_exist(address):
        check_fits(check_study(settle(declared, None)), corpus)
    where = open_storage(address)
    if new_version and (made := begin_version(declared, where, extra, partial(bring_checkpoints, workspace), settle)):
        for line in made.told():
            say(line)
    if launch.name is None:
        study = resolve_version(declared, where, extra, settle)
    else:
        study = settle(declared, stored_identity(launch.name, where))
    if stored_identity(study.name, where) is None:
        check_fits(check_study(study), corpus)
    opened = open_study(study, where, extra=extra)
    if announce and study.settled is not None:
        say_resolved(resolve(check_study(declared), corpus, rules=study.settled.rules), corpus)
    return study, corpus, opened


def _may_exist(address: str | Path) -> bool:
    """Whether there may be a database already: a file that is there, or a server."""
    text = str(address)
    return Path(text.removeprefix("sqlite:///")).exists() or ("://" in text and not text.startswith("sqlite"))


def run_command(
    workspace: Workspace,
    reference: Path | str,
    *,
    trials: int,
    workers: int,
    storage: str | None,
    assignments: Sequence[str],
    device: str,
    grace: float = 60.0,
    name: str | None = None,
    new_version: bool = False,
    only: Collection[int] | None = None,
    trust: bool = False,
    parts: Sequence[Path] = (),
) -> None:
    """Run the study until `trials` configurations are finished; the display, then the leaderboard and the links.

    `reference` is the study's file, or the name of a study that was run before. With `only`, run these configurations alone.
    `parts` are files that the workers load first.
    """
    from audio_cls.queue.status import leaderboard, searched_keys, summary
    from audio_cls.queue.supervisor import run_study
    from audio_cls.runs.preparation import mlflow_experiment
    from audio_cls.study.search import open_parent, settle_runs, study_identity
    from audio_cls.tracking import Tracker

    launch = find_launch(workspace, str(reference), storage, assignments, trust=trust)
    launch = replace(launch, name=name or launch.name)
    file, assignments = launch.file, launch.assignments
    study, corpus, opened = open_parts(workspace, launch, storage, new_version, announce=True)
    record_launch(workspace, opened, file, assignments)
    load_with(workspace, [file])  # it was loaded above; remembered now, also if no trial is left to run
    tracker = Tracker(workspace)
    tracker.flush()
    with workspace.lock(f"study-{study.name}-run"):
        parent = open_parent(tracker, study, corpus, file, opened.user_attrs.get(PARENT))
        if opened.user_attrs.get(PARENT) != parent.id:
            opened.set_user_attr(PARENT, parent.id)
    command = python_command("audio_cls.cli", "--workspace", str(workspace.root), "study", "worker", str(file))
    command += ["--trials", str(trials), "--device", device, "--supervisor", "{supervisor}", "--since", "{since}"]
    command += [word for a in assignments for word in ("--set", a)]
    command += ["--grace", str(grace), "--name", study.name]
    command += [word for config in only or () for word in ("--only", str(config))]
    command += [word for part in parts for word in ("--with", str(part))]
    # By the environment, not the command line, which every user of the machine can read, as they may hold a password.
    environment = {**workspace.environment(), **({STORAGE_VARIABLE: storage} if storage else {})}
    status = run_study(
        study,
        workspace.root,
        trials,
        workers,
        command,
        storage=storage,
        identity=study_identity(corpus),
        grace_seconds=grace,
        environment=environment,
        only=only,
    )
    settle_runs(tracker, mlflow_experiment(corpus), opened)
    wanted = status.rows if only is None else [row for row in status.rows if row.config in only]
    done = status.finished >= trials if only is None else all(r.state not in ("RUNNING", "WAITING") for r in wanted)
    figures: dict[str, float] = {
        "final/finished": status.finished,
        "final/complete": status.complete,
        "final/pruned": status.pruned,
    }
    figures["final/failed"] = sum(status.failed.values())
    if status.revived:
        figures |= {"final/revived": status.revived, "final/revived_overtook": status.overtook}
    if status.best is not None and status.best.value is not None:
        figures[f"best/{study.metric.removeprefix('val/')}"] = status.best.value
    parent.final(figures)
    parent.finish("COMPLETE" if done else "INTERRUPTED", "" if done else f"{status.finished} of {trials} finished")
    links = tracker.saved_views(
        mlflow_experiment(corpus), study.name, study.metric, searched_keys(status),
        ascending=study.direction == "minimize",
    )  # fmt: skip
    tracker.flush()
    show = console()
    show.print(leaderboard(status, width=show.width))
    for line in summary(status):
        say(line)
    if done:
        _write_page(workspace, tracker, study.name, storage)
    if links:
        say("\nMLflow UI: audio-cls ui, then")
        for title, link in links.items():
            say(f"  {title}: {link}")
    if not done:
        say("\ninterrupted: the same command goes on")
        raise SystemExit(130)


def _write_page(workspace: Workspace, tracker: Tracker, name: str, storage: str | None) -> None:
    """The study's page, also logged to MLflow. What is wrong with it costs the study nothing."""
    from audio_cls.runs.page_data import page_path, write_page
    from audio_cls.study.page_data import study_page

    try:
        run_id, page = study_page(workspace, name, storage, tracker)
        path = write_page(tracker, page_path(workspace, f"study-{name}"), page, run_id).path
    except Exception as error:
        say(f"no report: {type(error).__name__}: {error}", err=True)
    else:
        say(f"report: {path}")


def worker_command(
    workspace: Workspace,
    file: Path,
    *,
    trials: int,
    storage: str | None,
    assignments: Sequence[str],
    device: str,
    supervisor: int | None,
    since: float | None,
    grace: float = 60.0,
    name: str | None = None,
    only: Collection[int] = (),
) -> None:
    """One worker: kept warm over its trials."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    from audio_cls.core.device import choose_device, tune_process
    from audio_cls.core.phases import write_phase
    from audio_cls.core.stopping import StopRequest, Watch
    from audio_cls.queue.worker import run_worker
    from audio_cls.runs.preparation import Runtime
    from audio_cls.study.search import study_identity, trial_objective
    from audio_cls.tracking import Tracker

    tune_process(int(os.environ.get("OMP_NUM_THREADS", "1")))
    study, corpus, opened = open_parts(workspace, Launch(file, tuple(assignments), name), storage)
    with StopRequest(supervisor, grace) as stop:
        watch = Watch(stop, write_phase())
        runtime = Runtime(workspace, Tracker(workspace), choose_device(device), watch=watch)
        runtime.corpora[corpus.name] = corpus
        report = run_worker(
            study,
            workspace.root,
            trials,
            trial_objective(runtime, study, opened.user_attrs.get(PARENT), file),
            storage=storage,
            identity=study_identity(corpus),
            since=since,
            only=only or None,
            stop=stop,
        )
    runtime.tracker.flush()
    say(f"{report.left} {report.reason} {report.ended}")


def status_command(workspace: Workspace, reference: str | None, *, top: int, storage: str | None) -> None:
    """One study, or a table of all."""
    from audio_cls.data.groups import shared_groups_declared
    from audio_cls.queue.status import leaderboard, stored_status, summary
    from audio_cls.queue.storage import IDENTITY, open_storage

    where = open_storage(storage or workspace.optuna_db, must_exist=True)
    if reference is None:
        _table_of_all(where)
        return
    name = study_name(reference, where)
    status = stored_status(name, where)
    show = console()
    show.print(leaderboard(status, top, show.width))
    for line in summary(status):
        say(line)
    if shared := shared_groups_declared(open_by_name(reference, where).user_attrs.get(IDENTITY, {}).get("base", {})):
        say(f"note: {shared}")


def _table_of_all(where: Any) -> None:
    """A row for each study; a damaged one is told below, and hides no other."""
    from audio_cls.queue.status import stored_status
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
    table("studies", ["study", "finished", "running", "pruned", "failed", "best"], rows)
    for line in damaged:
        say(line)


def best_command(workspace: Workspace, reference: str, *, as_json: bool, storage: str | None) -> None:
    """The best trial of a study."""
    from audio_cls.queue.status import baseline_of, findings_of, stored_status
    from audio_cls.queue.storage import open_storage

    where = open_storage(storage or workspace.optuna_db, must_exist=True)
    status = stored_status(study_name(reference, where), where)
    best = status.best
    if best is None:
        raise UserError(
            f"study {status.name!r} has no complete trial yet: {status.finished} finished, {status.running} running"
        )
    experiment = best_experiment(workspace, status)
    if as_json:
        say(json.dumps(experiment, indent=2))
        return
    baseline = baseline_of(status)
    for line in findings_of(status):
        say(line)
    table(f"{status.name}: the best of {count(status.finished, 'configuration')}", ["what", "value"], [
        [status.metric, best.value],
        *([["a model that learned nothing", baseline]] if baseline is not None else []),
        ["trial", best.number],
        ["configuration", best.config],
        ["epochs", best.epochs],
        *[[k, v] for k, v in best.params.items()],
    ])  # fmt: skip
    say(
        f"again:  audio-cls study best {reference} --json > best.json && audio-cls train best.json --folds all --seeds 3"
    )


def best_experiment(workspace: Workspace, status: Any) -> dict[str, Any]:
    """The experiment of a study's best trial, as it was recorded with the trial."""
    stored = status.best.attrs.get("experiment")
    if not stored:
        raise UserError(
            f"study {status.name!r}: trial {status.best.number} was not run by audio_cls: no experiment is stored with it"
        )
    return json.loads(stored) if isinstance(stored, str) else dict(stored)


def open_by_name(reference: str, storage: Any) -> Any:
    """The Optuna study that is given by its name or its file."""
    from audio_cls.queue.storage import load_study

    return load_study(study_name(reference, storage), storage)


def study_name(reference: str, storage: Any) -> str:
    """The name of a study that is given by it, or by its file: of its newest version then."""
    from audio_cls.study.versions import newest_version

    return newest_version(load_study_file(Path(reference))[0].name, storage) if reference.endswith(".py") else reference
