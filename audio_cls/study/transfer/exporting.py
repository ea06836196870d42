"""`study export`: a study with its checkpoints, its runs in MLflow and its file, in one archive."""

from __future__ import annotations

import contextlib
import json
import platform
import re
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.queue.places import trial_folder
from audio_cls.queue.storage import IDENTITY, load_study, open_storage
from audio_cls.study.transfer.archive import ArchiveWriter
from audio_cls.study.transfer.carried_weights import export_weights
from audio_cls.study.transfer.portable import study_to_json
from audio_cls.tracking import Tracker
from audio_cls.tracking.copy import run_artifacts, run_record
from audio_cls.training.checkpoint import read_state

__all__ = ["PLAIN_NAME", "RUN", "export_study", "runs_of"]

RUN = "mlflow_run_id"  # attribute of a trial and of a study
PLAIN_NAME = r"[\w][\w .-]*"  # of a corpus in the workspace: no path


def export_study(
    workspace: Workspace, name: str, file: Path, *, storage: str | None = None, with_data: bool = False
) -> list[str]:
    """Write a study to one file; what was written, in lines. Workers may continue meanwhile.

    The trials are read first, at one moment; then the runs, then the checkpoints, each of which is whole. What is read later can
    only be further on than the trials say, and a trial that is resumed tells everything in its checkpoint again.
    """
    where = open_storage(storage or workspace.optuna_db, must_exist=True)
    tracker = Tracker(workspace)
    tracker.flush()
    with where.lock(name):
        study = study_to_json(load_study(name, where))
    said: list[str] = []
    with ArchiveWriter(file) as archive:
        runs = list(runs_of(study))
        missing = sum(not _export_run(archive, tracker, run_id) for run_id in runs)
        checkpoints = sum(
            _export_checkpoint(
                archive, [trial_folder(workspace, name, root, n) for n in numbers], f"checkpoints/{root:05d}"
            )
            for root, numbers in _attempts(study).items()
        )
        archive.text("study.json", json.dumps(study))
        base = study["attrs"].get(IDENTITY, {}).get("base", {}).get("data", {})
        corpus = str(base.get("corpus", ""))
        if with_data:
            _export_corpus(archive, workspace, corpus)
        without = export_weights(archive, workspace, study)
        about = {
            "study": name,
            "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": _versions(),
            "data": {
                "corpus": corpus,
                "digest": study["attrs"].get(IDENTITY, {}).get("data", ""),
                **({"labels": base["labels"]} if "labels" in base else {}),
            },
        }
        size = archive.close(about)
    said.append(
        f"{file}: study {name}, {len(study['trials'])} trials, {checkpoints} checkpoints, {len(runs) - missing} runs, {size / 1e6:.1f} MB"
    )
    if missing:
        said.append(f"{missing} runs are not in MLflow (yet): they are left out, and made anew if their trials go on")
    said += without
    if not with_data:
        said.append(f"the corpus {corpus!r} is not in it (--with-data puts it in)")
    return said


def runs_of(study: Mapping[str, Any]) -> Iterator[str]:
    """Return the ids of a study's runs in MLflow, its own first, each once."""
    seen: dict[str, None] = {}
    for attrs in (study["attrs"], *(t["user_attrs"] for t in study["trials"])):
        if attrs.get(RUN):
            seen[str(attrs[RUN])] = None
    return iter(seen)


def _attempts(study: Mapping[str, Any]) -> dict[int, list[int]]:
    """Return the numbers of each configuration's trials, newest first, by root."""
    out: dict[int, list[int]] = {}
    for trial in study["trials"]:
        out.setdefault(int(trial["user_attrs"].get("root_trial", trial["number"])), []).insert(0, trial["number"])
    return out


def _export_run(archive: ArchiveWriter, tracker: Tracker, run_id: str) -> bool:
    record = run_record(tracker, run_id)
    if record is None:
        return False
    with run_artifacts(tracker, record["run_id"]) as files:
        for name, path in files:
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as source:
                archive.file(f"mlflow/{run_id}/artifacts/{name}", source)
    archive.text(f"mlflow/{run_id}/run.json", json.dumps(record))
    return True


def _export_checkpoint(archive: ArchiveWriter, folders: list[Path], prefix: str) -> bool:
    """Return the furthest checkpoint of a configuration and the best weights that it names, from one moment."""
    for _ in range(20):  # a worker may put newer ones in their place while we look
        with contextlib.ExitStack() as stack:
            found = []
            for folder in folders:
                with contextlib.suppress(FileNotFoundError):
                    last = stack.enter_context(open(folder / "last.safetensors", "rb"))
                    found.append((int(read_state(last, str(folder))["epoch"]), folder, last))
            if not found:
                return False
            _, folder, last = max(found, key=lambda f: f[0])
            state = read_state(last, str(folder))
            best = None
            if state["best_epoch"] >= 0:
                name = f"best-{state['best_epoch']:04d}.safetensors"
                for place in (folder, *folders):
                    with contextlib.suppress(FileNotFoundError):
                        best = stack.enter_context(open(place / name, "rb"))
                        break
                if best is None:
                    continue
                archive.file(f"{prefix}/{folder.name}/{name}", best)
            archive.file(f"{prefix}/{folder.name}/last.safetensors", last)
            return True
    raise UserError(f"{folders[0]}: the best weights that its checkpoint names are missing")


def _export_corpus(archive: ArchiveWriter, workspace: Workspace, name: str) -> None:
    from audio_cls.runs.preparation import open_corpus

    if not re.fullmatch(PLAIN_NAME, name):
        raise UserError(f"--with-data: the corpus {name!r} lies outside the workspace's corpora/")
    corpus = open_corpus(workspace, name)
    for path in (corpus.directory / "index.json", corpus.samples_path):
        with open(path, "rb") as source:
            archive.file(f"corpora/{name}/{path.name}", source)


def _versions() -> dict[str, str]:
    out = {"python": platform.python_version()}
    for package in ("audio_cls", "optuna", "mlflow", "torch"):
        with contextlib.suppress(PackageNotFoundError):
            out[package] = version(package)
    return out
