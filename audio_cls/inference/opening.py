"""Open trained models by name: a run, a study (its best complete run), a model in MLflow's registry, an exported folder."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from audio_cls.core.device import choose_device
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.inference.exported import ExportedLabeller, export_of
from audio_cls.inference.labeller import Labeller
from audio_cls.inference.mlflow_model import open_model_folder
from audio_cls.inference.run_labeller import THRESHOLDS, WEIGHTS, RunLabeller
from audio_cls.runs.own_parts import recorded_experiment
from audio_cls.tracking import RunInfo, Tracker
from audio_cls.tracking.registry import ModelVersion, find_version, is_reference, model_files, model_versions

__all__ = ["find_run", "open_labeller", "open_labellers", "registered_labeller", "run_labeller"]


def open_labellers(names: Sequence[str], tracker: Tracker, device: str = "auto") -> list[Labeller]:
    """Open trained models.

    Args:
        names: each the id or name of a run, the name of a study (its best complete run), a registered model (NAME@ALIAS,
            NAME/VERSION), or an exported folder or one of its models.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".

    Raises:
        UserError: for a name that nothing has, and a run that cannot label.
    """
    chosen = choose_device(device)
    out = [_open(name, tracker, chosen) for name in names]
    shared = {name for name, n in Counter(labeller.name for labeller in out).items() if n > 1}
    for labeller, name in zip(out, names, strict=True):
        if labeller.name in shared and labeller.name != name:  # a run and what was exported from it
            labeller.name = f"{labeller.name} ({name})"
    return out


def open_labeller(name: str, *, workspace: Workspace | Path | str | None = None, device: str = "auto") -> Labeller:
    """Open a trained model to label audio with.

    Args:
        name: the id or name of a run, the name of a study (its best complete run), a registered model (NAME@ALIAS,
            NAME/VERSION), or an exported folder or one of its models.
        workspace: its folder; AUDIO_CLS_WORKSPACE or the current folder unless given.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".

    Raises:
        UserError: for a name that nothing has, and a run that cannot label.
    """
    return open_labellers([name], Tracker(Workspace.of(workspace)), device)[0]


def find_run(name: str, tracker: Tracker) -> RunInfo:
    """Return the run of this id or name; of a study, given by its name or its run, the best complete one.

    Raises:
        UserError: when there is none, or more than one is meant.
    """
    quoted = name.replace("'", "")
    studies = tracker.runs(None, f"tags.kind = 'study' and tags.study = '{quoted}'", (), 1) if quoted else []
    if studies:
        return _best_of(studies[0], tracker)
    info = tracker.resolve(name)
    return _best_of(info, tracker) if info.tags.get("kind") == "study" else info


def run_labeller(tracker: Tracker, info: RunInfo, device: torch.device) -> RunLabeller:
    """Return a run's classifier with its front end, on a device.

    Raises:
        UserError: for a run without weights, or whose artifacts are damaged.
    """
    folder = tracker.download(info.run_id, WEIGHTS).parent.parent
    wanted = ["experiment.json", "classes.json"] + ([THRESHOLDS] if "thresholds" in info.tags else [])
    for name in wanted:
        if not (folder / name).exists():  # the runs lie on a server: fetched into the folder of the weights
            tracker.download(info.run_id, name, folder)
    return RunLabeller(folder, device, recorded_experiment(tracker, info), name=info.name)


def _open(name: str, tracker: Tracker, device: torch.device) -> Labeller:
    exported = export_of(name)
    if exported is not None:
        return ExportedLabeller(exported, device)
    if is_reference(name):
        return registered_labeller(tracker, find_version(tracker, name), device)
    try:
        info = find_run(name, tracker)
    except UserError:
        registered = {version.name for version in model_versions(tracker)}
        if not registered & {name, name.rpartition("/")[0]}:  # NAME, or NAME/VERSION
            raise
        return registered_labeller(tracker, find_version(tracker, name), device)
    return run_labeller(tracker, info, device)


def registered_labeller(tracker: Tracker, version: ModelVersion, device: torch.device) -> RunLabeller:
    """Return the labeller of a registered model; its run need not be there any more.

    Raises:
        UserError: for a model whose files are gone or damaged, or that audio_cls did not make.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_files(tracker, version, Path(scratch))
        return open_model_folder(folder, device, tracker.workspace, name=version.reference)


def _best_of(study: RunInfo, tracker: Tracker) -> RunInfo:
    """Return the complete trial of a study that has the best figure of the study's metric."""
    name, metric = study.tags.get("study", study.name), study.tags.get("study.metric", "")
    quoted = name.replace("'", "")
    trials = tracker.runs(None, f"tags.study = '{quoted}' and tags.kind = 'trial' and tags.state = 'COMPLETE'")
    key = f"best/{metric.removeprefix('val/')}"
    found = [run for run in trials if key in run.metrics]
    if not found:
        raise UserError(f"study {name!r} has no complete trial with a figure {key!r} yet: {len(trials)} complete")
    sign = -1 if study.tags.get("study.direction") == "minimize" else 1
    return max(found, key=lambda run: sign * run.metrics[key])
