"""A search made ready to run: its declaration found, settled on its corpus, its study opened; also in a worker's process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.core.config import parse_assignment
from audio_cls.core.loading import load_file
from audio_cls.core.workspace import Workspace
from audio_cls.study.declaration import Study, load_study_file
from audio_cls.study.launches import Launch
from audio_cls.study.scripts import rebuild

if TYPE_CHECKING:
    from audio_cls.data.corpus import Corpus
    from audio_cls.queue.process import Session, Worked, WorkTarget

__all__ = ["PARENT", "OpenedSearch", "declared_study", "open_by_name", "open_parts", "open_work", "stored_name", "work_target"]  # fmt: skip

PARENT = "mlflow_run_id"  # user attribute of a study: its run in MLflow


@dataclass(frozen=True)
class OpenedSearch:
    """study: the declaration under its version's name, settled on the corpus. opened: the Optuna study. said: what was done, in lines."""

    study: Study
    corpus: Corpus
    opened: Any
    said: tuple[str, ...] = ()


def declared_study(launch: Launch) -> Study:
    """Return the study that a file declares, its base changed by `--set`, under the name that it goes by."""
    if launch.study is not None:
        study = launch.study
    elif launch.declaration:
        study = rebuild(launch.file, launch.declaration)
    else:
        study, _ = load_study_file(launch.file)
    changes = dict(parse_assignment(a) for a in launch.assignments)
    study = replace(study, base=study.base.override(changes)) if changes else study
    return replace(study, name=launch.name or f"{study.name}{launch.suffix}")


def open_parts(
    workspace: Workspace, launch: Launch, storage: str | Path | None, new_version: bool = False
) -> OpenedSearch:
    """Open a search: the declaration, its corpus, its study.

    Raises:
        UserError: for a base that does not fit the corpus, before anything is created; and when the study was started by another
            declaration, unless a `new_version` shall be started then.
    """
    from audio_cls.queue.storage import open_storage, open_study
    from audio_cls.runs.preparation import check_fits, open_corpus
    from audio_cls.study.carry_over import bring_checkpoints
    from audio_cls.study.losses import check_losses
    from audio_cls.study.search import check_study, settle_study, study_identity
    from audio_cls.study.versions import begin_version, resolve_version, stored_identity

    def settle(declared: Study, stored: Mapping[str, Any] | None) -> Study:
        return settle_study(declared, corpus, stored)

    declared = declared_study(launch)
    corpus = open_corpus(workspace, check_study(declared).data)
    address, extra = storage or workspace.optuna_db, study_identity(corpus)
    if new_version or not _may_exist(address):
        check_fits(check_study(settle(declared, None)), corpus, workspace)
        check_losses(settle(declared, None))
    where = open_storage(address)
    made = None
    if new_version:
        made = begin_version(declared, where, extra, partial(bring_checkpoints, workspace), settle)
    if launch.name is None:
        study = resolve_version(declared, where, extra, settle)
    else:
        study = settle(declared, stored_identity(launch.name, where))
    if stored_identity(study.name, where) is None:
        check_fits(check_study(study), corpus, workspace)
        check_losses(study)
    opened = open_study(study, where, extra=extra)
    return OpenedSearch(study, corpus, opened, tuple(made.describe()) if made else ())


def _may_exist(address: str | Path) -> bool:
    """Whether there may be a database already: a file that is there, or a server."""
    text = str(address)
    return Path(text.removeprefix("sqlite:///")).exists() or ("://" in text and not text.startswith("sqlite"))


def work_target(launch: Launch, name: str, parts: Sequence[Path] = ()) -> WorkTarget:
    """Return how a worker process gets the search; it loads the files `parts` first."""
    from audio_cls.queue.process import WorkTarget

    arguments = {
        "file": str(launch.file),
        "assignments": list(launch.assignments),
        "name": name,
        "parts": [str(p) for p in parts],
        "declaration": dict(launch.declaration),
    }
    return WorkTarget("audio_cls.study.opening:open_work", arguments)


def open_work(
    session: Session,
    file: str,
    assignments: Sequence[str],
    name: str,
    parts: Sequence[str],
    declaration: Mapping[str, Any],
) -> Worked:
    """Return the work of a worker process of a search, kept warm over its trials."""
    from audio_cls.queue.process import Worked
    from audio_cls.runs.own_parts import load_with
    from audio_cls.study.search import check_study, study_identity, trial_objective

    launch = Launch(Path(file), tuple(assignments), name, declaration)
    if declaration:
        load_file(launch.file, wanted=declaration["space"])  # before `parts`, among which it may be
    load_with(session.workspace, [Path(p) for p in parts])
    search = open_parts(session.workspace, launch, session.options.storage)
    runtime = session.runtime()
    runtime.keep(check_study(search.study).data, search.corpus)
    objective = trial_objective(runtime, search.study, search.opened.user_attrs.get(PARENT), launch.file)
    return Worked(search.study, objective, study_identity(search.corpus), runtime.tracker.flush)


def stored_name(reference: str, storage: Any) -> str:
    """Return the name of a study that is given by it, or by its file: of its newest version then."""
    from audio_cls.study.versions import newest_version

    return newest_version(load_study_file(Path(reference))[0].name, storage) if reference.endswith(".py") else reference


def open_by_name(reference: str, storage: Any) -> Any:
    """Return the Optuna study that is given by its name or its file."""
    from audio_cls.queue.storage import load_study

    return load_study(stored_name(reference, storage), storage)
