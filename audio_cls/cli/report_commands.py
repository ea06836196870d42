"""`audio-cls report`: the page of a run or a study, built from what the workspace holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.cli.console import say
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace, atomic_write

if TYPE_CHECKING:
    from audio_cls.runs.opened_clips import ClipHistory
    from audio_cls.tracking import RunInfo, Tracker

__all__ = ["report_command", "run_page"]

ARTIFACT = "report.html"
OF_OUR_OWN = {
    "suite": "audio-cls ablate report NAME makes the page of a suite",
    "arm": "audio-cls ablate report NAME makes the page of its suite",
    "cross-validation": "name one of the runs below it",
}


def report_command(
    workspace: Workspace, reference: str, *, html: Path | None, device: str = "auto", storage: str | None = None
) -> None:
    """Build the page of a run or a study, write it, log it to MLflow, and say where it is."""
    from audio_cls.tracking import Tracker

    tracker = Tracker(workspace)
    tracker.flush()
    study = _study_name(workspace, reference, storage)
    if study is None:
        info = _resolve(workspace, tracker, reference, storage)
        if info.tags.get("kind") == "study":
            study = info.tags["study"]
    if study is not None:
        path = html or page_path(workspace, f"study-{study}")
        _check_writable(workspace, path)
        from audio_cls.study.page_data import study_page

        run_id, page = study_page(workspace, study, storage, tracker)
    else:
        path = html or page_path(workspace, f"run-{info.name}-{info.run_id[:8]}")
        _check_writable(workspace, path)
        run_id, page = info.run_id, run_page(workspace, tracker, info, device)
    try:
        atomic_write(path, page)
    except OSError as error:
        raise UserError(f"the report cannot be written to {path}: {error}") from None
    logged = ""
    if tracker.read_only:
        logged = "; not logged to MLflow: the workspace is read-only"
    elif run_id:
        tracker.reopen(run_id).artifact_text(ARTIFACT, page)
        tracker.flush()
        logged = f"; in MLflow it is {ARTIFACT} of the run {run_id[:8]}"
    say(f"{path} ({len(page.encode()) / 1e6:.1f} MB){logged}")


def _check_writable(workspace: Workspace, path: Path) -> None:
    """Refuse a page that could not be written, before it is built."""
    if workspace.read_only and path.resolve().is_relative_to(workspace.root):
        raise UserError(
            f"the report would be written to {path}, and the workspace is read-only: name another place with --html FILE"
        )


def page_path(workspace: Workspace, name: str) -> Path:
    """Where a page is written unless told otherwise."""
    return workspace.reports / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.html"


def run_page(workspace: Workspace, tracker: Tracker, info: RunInfo, device: str = "auto") -> str:
    """The page of a run with its listening audit, from the recorded predictions of its validation clips.

    Raises:
        UserError: for a run that is not complete, or whose corpus has changed.
    """
    from audio_cls.core.device import choose_device, tune_process
    from audio_cls.metrics.baselines import finite_figures
    from audio_cls.report.audit import audit_sections
    from audio_cls.report.calibration import calibration_section
    from audio_cls.runs.evaluation import score_with_progress
    from audio_cls.runs.opened_clips import history_of_runs
    from audio_cls.runs.page import RunReport, run_report
    from audio_cls.runs.preparation import Runtime

    kind = info.tags.get("kind", "")
    if kind in OF_OUR_OWN:
        raise UserError(f"{info.name} ({info.run_id[:8]}) is a {kind}: {OF_OUR_OWN[kind]}{_below(tracker, info)}")
    tune_process()
    scored = score_with_progress(Runtime(workspace, tracker, choose_device(device)), info, "validation")
    corpus, experiment, predictions = scored.corpus, scored.experiment, scored.predictions
    history = history_of_runs(workspace, tracker, [info])
    audit = audit_sections(predictions, lambda row: corpus.waveform(int(scored.clips[row])), corpus.sample_rate)
    return run_report(
        RunReport(
            title=info.name,
            predictions=predictions,
            curves=_curves(tracker, info),
            config=experiment.flatten(),
            facts={**_facts(info, corpus.name), **({"test clips": history.sentence()} if history.openings else {})},
            metric=experiment.training.metric,
            baseline=finite_figures(scored.baseline),
            findings=[*scored.judgement().lines, *_looked_at(info, history)],
        ),
        more=[*audit, calibration_section({"validation": (predictions.scores, predictions.targets)}, corpus.task)],
    )


def _looked_at(info: RunInfo, history: ClipHistory) -> list[str]:
    """The sentence that says how often a run's test clips have been opened, where for other runs too."""
    from audio_cls.runs.opened_clips import named

    if not history.but(named(info)).openings:
        return []
    sentence = history.sentence()
    return [f"{sentence[0].upper()}{sentence[1:]}."]


def _study_name(workspace: Workspace, reference: str, storage: str | None) -> str | None:
    """The study that is meant, if any: by the file that declares it, or by its name."""
    if reference.endswith(".py"):
        from audio_cls.study.declaration import load_study_file

        return load_study_file(Path(reference))[0].name
    return reference if reference in _studies(workspace, storage) else None


def _studies(workspace: Workspace, storage: str | None) -> list[str]:
    if storage is None and not workspace.optuna_db.exists():
        return []
    from audio_cls.queue.storage import open_storage, study_names

    return study_names(open_storage(storage or workspace.optuna_db, must_exist=True))


def _resolve(workspace: Workspace, tracker: Tracker, reference: str, storage: str | None) -> RunInfo:
    try:
        return tracker.resolve(reference)
    except UserError as error:
        studies = _studies(workspace, storage)
        raise UserError(f"{error} Studies: {', '.join(studies) or 'none'}.") from None


def _below(tracker: Tracker, info: RunInfo) -> str:
    runs = tracker.runs(None, f"tags.mlflow.parentRunId = '{info.run_id}'", (), 20)
    names = ", ".join(f"{run.name} ({run.run_id[:8]})" for run in runs)
    return f". Below it: {names}" if names else ""


def _text(tracker: Tracker, info: RunInfo, artifact: str) -> str:
    return tracker.download(info.run_id, artifact).read_text(encoding="utf-8")


def _curves(tracker: Tracker, info: RunInfo) -> list[dict[str, float]]:
    rows: dict[int, dict[str, float]] = {}
    for key in info.metrics:
        if key.startswith(("train/", "val/")):
            for step, value in tracker.curve(info.run_id, key):
                rows.setdefault(step, {"epoch": float(step + 1)})[key] = value
    return [rows[step] for step in sorted(rows)]


def _facts(info: RunInfo, corpus: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"run": info.run_id, "data": f"{corpus} {info.tags.get('data.digest', '')[:12]}"}
    for key in ("final/parameters", "final/train_seconds", "final/samples_per_second", "best/epoch"):
        if key in info.metrics:
            facts[key.partition("/")[2].replace("_", " ") if key != "best/epoch" else "best epoch"] = info.metrics[key]
    if "best epoch" in facts:
        facts["best epoch"] += 1  # MLflow's steps count from 0
    for key in (
        "device",
        "precision",
        "git.commit",
        "study",
        "trial",
        "test.openings",
        "test.first_opened",
        "test.chosen_by",
        "split.fold_name",
        "split.shared_groups",
    ):
        if info.tags.get(key):
            facts[key] = info.tags[key]
    facts.setdefault("test.openings", "0: the test split has not been opened")
    return facts
