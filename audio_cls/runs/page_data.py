"""What the page of a run shows, gathered from MLflow and the workspace; and where pages are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_cls.core.device import choose_device, tune_process
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace, atomic_write
from audio_cls.data.remarks import REMARKS
from audio_cls.metrics.baselines import finite_figures
from audio_cls.report.audit import audit_sections
from audio_cls.runs.clip_columns import clip_columns
from audio_cls.runs.collapse import COLLAPSED
from audio_cls.runs.evaluation import score_with_progress
from audio_cls.runs.opened_clips import ClipHistory, history_of_runs, named
from audio_cls.runs.page import RunReport, run_report
from audio_cls.runs.preparation import Runtime
from audio_cls.tracking import RunInfo, Tracker

__all__ = ["PAGE", "WrittenPage", "page_path", "run_curves", "run_page", "write_page"]

PAGE = "report.html"  # the artifact of a run in MLflow
OF_OUR_OWN = {
    "suite": "audio-cls ablate report NAME makes the page of a suite",
    "arm": "audio-cls ablate report NAME makes the page of its suite",
    "cross-validation": "name one of the runs below it",
}


@dataclass(frozen=True)
class WrittenPage:
    """A page that was written: where, its size, and the run in MLflow that has it as well ("" for none)."""

    path: Path
    n_bytes: int
    run_id: str


def page_path(workspace: Workspace, name: str, given: Path | None = None) -> Path:
    """Return where a page is written: the file that was `given`, else `reports/NAME.html`.

    Raises:
        UserError: for a place in a workspace that is read-only.
    """
    path = given or workspace.reports / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.html"
    if workspace.read_only and path.resolve().is_relative_to(workspace.root):
        raise UserError(
            f"the report would be written to {path}, and the workspace is read-only: name another place with --html FILE"
        )
    return path


def write_page(tracker: Tracker, path: Path, page: str, run_id: str = "") -> WrittenPage:
    """Write a page, and log it to MLflow with the run `run_id` unless the workspace is read-only.

    Raises:
        UserError: where the file cannot be written.
    """
    try:
        atomic_write(path, page)
    except OSError as error:
        raise UserError(f"the report cannot be written to {path}: {error}") from None
    if tracker.read_only or not run_id:
        return WrittenPage(path, len(page.encode()), "")
    run = tracker.reopen(run_id)
    run.artifact_text(PAGE, page)
    run.close()
    tracker.flush()
    return WrittenPage(path, len(page.encode()), run_id)


def run_page(workspace: Workspace, tracker: Tracker, info: RunInfo, device: str = "auto") -> str:
    """Return the page of a run with its listening audit, from the recorded predictions of its validation clips.

    Raises:
        UserError: for a run that is not complete, or whose corpus has changed.
    """
    kind = info.tags.get("kind", "")
    if kind in OF_OUR_OWN:
        raise UserError(f"{info.name} ({info.run_id[:8]}) is a {kind}: {OF_OUR_OWN[kind]}{_below(tracker, info)}")
    tune_process()
    scored = score_with_progress(Runtime(workspace, tracker, choose_device(device)), info, "validation")
    corpus, experiment, predictions = scored.corpus, scored.experiment, scored.predictions
    history = history_of_runs(workspace, tracker, [info])
    audit = audit_sections(predictions, lambda row: corpus.values(int(scored.clips[row])), corpus.rate)
    return run_report(
        RunReport(
            title=info.name,
            predictions=predictions,
            curves=run_curves(tracker, info),
            config=experiment.flatten(),
            facts={**_facts(info, corpus.name), **({"test clips": history.sentence()} if history.openings else {})},
            metric=experiment.training.metric,
            baseline=finite_figures(scored.baseline),
            columns=clip_columns(corpus, scored.clips),
            findings=[*_collapsed(info), *scored.judgement().lines, *_looked_at(info, history)],
        ),
        more=audit,
    )


def _collapsed(info: RunInfo) -> list[str]:
    """Return the sentence that says that a run has collapsed, and why."""
    return [info.tags[COLLAPSED]] if COLLAPSED in info.tags else []


def _looked_at(info: RunInfo, history: ClipHistory) -> list[str]:
    """Return the sentence that says how often a run's test clips have been opened, where for other runs too."""
    if not history.but(named(info)).openings:
        return []
    sentence = history.sentence()
    return [f"{sentence[0].upper()}{sentence[1:]}."]


def _below(tracker: Tracker, info: RunInfo) -> str:
    runs = tracker.runs(None, f"tags.mlflow.parentRunId = '{info.run_id}'", (), 20)
    names = ", ".join(f"{run.name} ({run.run_id[:8]})" for run in runs)
    return f". Below it: {names}" if names else ""


def _text(tracker: Tracker, info: RunInfo, artifact: str) -> str:
    return tracker.download(info.run_id, artifact).read_text(encoding="utf-8")


def run_curves(tracker: Tracker, info: RunInfo) -> list[dict[str, float]]:
    """Return a row for each epoch of a run, as its page takes them: "epoch" (from 1), "train/loss", "val/macro_f1", ..."""
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
        "test.kind",
        "split.fold_name",
        *REMARKS,
    ):
        if info.tags.get(key):
            facts[key] = info.tags[key]
    facts.setdefault("test.openings", "0: the test split has not been opened")
    return facts
