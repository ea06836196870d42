"""What the `study` commands do: the study package, the objective and the tracker put together."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.cli.console import console, say, table
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import count
from audio_cls.core.workspace import Workspace
from audio_cls.runs.own_parts import load_with
from audio_cls.study.launches import find_launch, record_launch
from audio_cls.study.opening import PARENT, declared_study, open_by_name, open_parts, stored_name, work_target

if TYPE_CHECKING:
    from audio_cls.tracking import Tracker


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
    from audio_cls.cli.commands import say_resolved
    from audio_cls.cli.leaderboard import leaderboard
    from audio_cls.queue.options import QueueOptions
    from audio_cls.queue.status import searched_keys, summary
    from audio_cls.queue.supervisor import run_workers
    from audio_cls.queue.tracked import settle_runs
    from audio_cls.runs.preparation import mlflow_experiment
    from audio_cls.runs.resolve import resolve
    from audio_cls.study.search import check_study, open_parent, study_identity
    from audio_cls.tracking import Tracker

    launch = find_launch(workspace, str(reference), storage, assignments, trust=trust)
    launch = replace(launch, name=name or launch.name)
    file, assignments = launch.file, launch.assignments
    search = open_parts(workspace, launch, storage, new_version)
    study, corpus, opened = search.study, search.corpus, search.opened
    for line in search.said:
        say(line)
    if study.settled is not None:
        base = check_study(declared_study(launch))
        say_resolved(resolve(base, corpus, rules=study.settled.rules), corpus)
    record_launch(workspace, opened, file, assignments)
    load_with(workspace, [file])  # it was loaded above; remembered now, also if no trial is left to run
    tracker = Tracker(workspace)
    tracker.flush()
    with workspace.lock(f"study-{study.name}-run"):
        parent = open_parent(tracker, study, corpus, file, opened.user_attrs.get(PARENT))
        if opened.user_attrs.get(PARENT) != parent.id:
            opened.set_user_attr(PARENT, parent.id)
    status = run_workers(
        study,
        workspace,
        trials,
        work_target(launch, study.name, parts),
        QueueOptions(storage=storage, workers=workers, device=device, grace_seconds=grace),
        identity=study_identity(corpus),
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


def status_command(workspace: Workspace, reference: str | None, *, top: int, storage: str | None) -> None:
    """One study, or a table of all."""
    from audio_cls.cli.leaderboard import leaderboard
    from audio_cls.data.groups import shared_groups_declared
    from audio_cls.queue.status import stored_status, summary
    from audio_cls.queue.storage import IDENTITY, open_storage

    where = open_storage(storage or workspace.optuna_db, must_exist=True)
    if reference is None:
        _table_of_all(where)
        return
    name = stored_name(reference, where)
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
    status = stored_status(stored_name(reference, where), where)
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
    stored = status.best.record.experiment
    if not stored:
        raise UserError(
            f"study {status.name!r}: trial {status.best.number} was not run by audio_cls: no experiment is stored with it"
        )
    return json.loads(stored) if isinstance(stored, str) else dict(stored)
