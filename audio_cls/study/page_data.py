"""What the page of a study shows, gathered from Optuna's storage, the workspace and MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.data.remarks import declared_remarks
from audio_cls.data.views import view_of
from audio_cls.queue.status import Row, StudyStatus, baseline_of, findings_of, last_epoch_of, study_status
from audio_cls.queue.storage import IDENTITY, StudyStorage, load_study, open_storage, study_names
from audio_cls.runs.opened_clips import history_of_runs, named
from audio_cls.runs.preparation import open_corpus
from audio_cls.runs.scores import listening_audit, read_predictions
from audio_cls.study.declaration import load_study_file
from audio_cls.study.page import StudyReport, TrialRow, study_report
from audio_cls.study.plots import study_figures
from audio_cls.study.transfer.exporting import RUN

if TYPE_CHECKING:
    from audio_cls.report.page import Section
    from audio_cls.tracking import RunInfo, Tracker

__all__ = ["study_or_run", "study_page"]

GRID = "grid: every combination of the values in the space"


def study_page(
    workspace: Workspace, name: str, storage: str | Path | None = None, tracker: Tracker | None = None
) -> tuple[str, str]:
    """Build the page of a study.

    Args:
        tracker: where its runs are looked up, for openings of the test split and the listening audit; without one these are left out.

    Returns:
        The id of the study's run in MLflow ("" without one), and the page.

    Raises:
        UserError: when there is no such study.
    """
    where = open_storage(storage or workspace.optuna_db, must_exist=True)
    study = load_study(name, where)
    status = study_status(study)
    identity: Mapping[str, Any] = study.user_attrs.get(IDENTITY, {})
    parent = str(study.user_attrs.get(RUN, ""))
    links = []
    if parent:
        links.append(
            f"Its trials are the runs below {parent[:8]} in MLflow (audio-cls ui), each named by its configuration; "
            "the column run holds the beginning of their ids, which audio-cls report takes as well."
        )
    page = study_report(
        StudyReport(
            title=f"Study: {name}",
            metric=status.metric,
            direction=status.direction,
            rows=[_trial_row(row) for row in status.rows],
            facts=_facts(status, identity, where, _openings(workspace, tracker, name) if tracker else ""),
            space=str(identity.get("space", {}).get("source", "")),
            figures=study_figures(study),
            total=status.total,
            attempts=status.attempts,
            states={t.number: t.state.name for t in study.get_trials(deepcopy=False)},
            links=links,
            baseline=baseline_of(status),
            last=last_epoch_of(status.best, status.metric) if status.best else None,
            findings=findings_of(status),
            published=status.published,
        ),
        more=_audit_of_best(workspace, tracker, status, identity) if tracker else (),
    )
    return parent, page


def study_or_run(tracker: Tracker, reference: str, storage: str | Path | None = None) -> str | RunInfo:
    """Find what a reference means: the name of a study (given by it, by its file, or by its run in MLflow), or else a run.

    Raises:
        UserError: when there is neither.
    """
    if reference.endswith(".py"):
        return load_study_file(Path(reference))[0].name
    workspace = tracker.workspace
    known = []
    if storage is not None or workspace.optuna_db.exists():
        known = study_names(open_storage(storage or workspace.optuna_db, must_exist=True))
    if reference in known:
        return reference
    try:
        info = tracker.resolve(reference)
    except UserError as error:
        raise UserError(f"{error} Studies: {', '.join(known) or 'none'}.") from None
    return info.tags["study"] if info.tags.get("kind") == "study" else info


def _trial_row(row: Row) -> TrialRow:
    return TrialRow(
        number=row.number,
        state=row.state,
        value=row.value,
        params=row.params,
        epochs=row.epochs,
        seconds=row.seconds,
        attempts=row.attempts,
        revived=row.revived,
        reason=row.reason,
        run=row.record.mlflow_run_id or "",
        extended=row.revived and bool(row.record.changes),
        collapsed=row.collapsed,
        state_text=row.state_text,
    )


def _facts(status: StudyStatus, identity: Mapping[str, Any], where: StudyStorage, openings: str) -> dict[str, Any]:
    base = identity.get("base", {})
    facts = {
        "metric": f"{status.metric} ({status.direction})",
        "sampler": GRID if status.sampler == "grid" else _component(identity.get("sampler")),
        "pruner": _component(identity.get("pruner")),
        "data": f"{base.get('data', {}).get('corpus', '')} {str(identity.get('data', ''))[:12]}".strip(),
        "metric code": f"version {identity['metric_version']}" if "metric_version" in identity else "",
        "split": "; ".join(declared_remarks(base)),
        "storage": where.shown.rpartition("/")[2],
        "interruptions taken up": status.interruptions,
        "test split": openings,
    }
    return {key: value for key, value in facts.items() if value != ""}


def _audit_of_best(
    workspace: Workspace, tracker: Tracker, status: StudyStatus, identity: Mapping[str, Any]
) -> list[Section]:
    """Return the listening audit of a study's best run, from its stored predictions; empty if they or the corpus
    are not at hand.
    """
    reference = (status.best.record.mlflow_run_id or "") if status.best else ""
    try:
        data = identity.get("base", {}).get("data", {})
        corpus = view_of(open_corpus(workspace, str(data.get("corpus", ""))), data)
        if not reference or corpus.digest != identity.get("data"):
            return []
        info = tracker.resolve(reference)
        scores = read_predictions(tracker, info.run_id, corpus, "best")
    except UserError:
        return []
    return (
        listening_audit(scores, corpus, f"By {info.name}, the best of the study, on its validation clips.")
        if scores
        else []
    )


def _openings(workspace: Workspace, tracker: Tracker, study: str) -> str:
    """Return which of a study's trials had their test split opened, and how often those clips were, for whichever run."""
    try:
        opened = tracker.runs(None, f"tags.study = '{study}' and tags.`test.openings` LIKE '%'")
    except UserError:
        return "not known: the runs cannot be read"
    if not opened:
        return "not opened"
    own = "; ".join(
        f"{r.name} opened {r.tags['test.openings']} time(s), first {r.tags.get('test.first_opened')}" for r in opened
    )
    history = history_of_runs(workspace, tracker, opened)
    names = {named(r) for r in opened}
    return f"{own}. In all, {history.sentence()}" if {o.what for o in history.openings} - names else own


def _component(values: Mapping[str, Any] | None) -> str:
    if not values:
        return ""
    rest = ", ".join(f"{key}={value}" for key, value in values.items() if key != "kind")
    return f"{values.get('kind', '')} ({rest})" if rest else str(values.get("kind", ""))
