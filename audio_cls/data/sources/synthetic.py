"""A data set that the project makes itself: ten kinds of sounds, as imbalanced, noisy and overlapping as asked.

On disk it is a CSV layout: `audio/*.wav`, `meta.csv` with path, labels, fold and group, and `generator.json`, the settings.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from audio_cls.core.config import Component
from audio_cls.core.errors import UserError, choices
from audio_cls.core.rng import numpy_rng
from audio_cls.data.manifest import Manifest
from audio_cls.data.sources.base import Source
from audio_cls.data.sources.csv import read_table
from audio_cls.data.workers import WorkerDied, ordered_map, usable_cores

__all__ = ["Generated", "Plan", "Synthetic", "generate", "plan"]

CLASS_NAMES = ("engine", "rain", "bird", "siren", "footsteps", "drill", "clock", "wind", "alarm", "bark")
_SETTINGS = "generator.json"
_CHUNK = 8  # clips a job


class Synthetic(Component):
    """The settings of the generator. Equal settings give the same data set, whatever the number of workers.

    Attributes:
        n_clips: clips in all.
        clip_seconds, sample_rate: of every clip, seconds and hertz.
        classes: which sounds, the most frequent first.
        imbalance: clips of the first class for each of the last; between them the counts fall geometrically.
        noise: lowest and highest signal-to-noise ratio, dB; each clip draws one.
        overlap: chance of another class's sound, quieter by 6 to 18 dB and not labelled, behind a multiclass clip.
        task: "multiclass" (one sound, one label) or "multilabel" (one to three overlapping sounds, all labelled).
        n_folds: folds 1..n, stratified, groups whole.
        n_groups: recordings; clips of one share source, room and background. None: one for every three clips, but at
            least one per class and fold where there are clips enough.
        file_format: "wav" or "flac", 16 bit.
        seed: of everything.
    """

    n_clips: Annotated[int, Field(ge=1)] = 1000
    clip_seconds: Annotated[float, Field(ge=0.2, le=60)] = 3.0
    sample_rate: Annotated[int, Field(ge=4000, le=96000)] = 16000
    classes: tuple[str, ...] = CLASS_NAMES
    imbalance: Annotated[float, Field(ge=1)] = 3.0
    noise: tuple[float, float] = (8.0, 28.0)
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.25
    task: Literal["multiclass", "multilabel"] = "multiclass"
    n_folds: Annotated[int, Field(ge=1)] = 5
    n_groups: Annotated[int, Field(ge=1)] | None = None
    file_format: Literal["wav", "flac"] = "wav"
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.classes:
            if name not in CLASS_NAMES:
                raise ValueError(f"{name!r} is no class of the generator. {choices(name, CLASS_NAMES)}")
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise ValueError("classes must be one or more different names")
        if self.n_clips < len(self.classes):
            raise ValueError(f"n_clips {self.n_clips} is less than the {len(self.classes)} classes")
        if self.n_groups is not None and not len(self.classes) <= self.n_groups <= self.n_clips:
            raise ValueError(f"n_groups {self.n_groups} must lie between the number of classes and n_clips")
        if self.noise[0] > self.noise[1]:
            raise ValueError("noise is (lowest, highest) signal-to-noise ratio in dB")
        return self


@dataclass(frozen=True)
class Plan:
    """What each clip will hold: file name, classes (the first is the loudest), group and fold."""

    names: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    groups: tuple[int, ...]
    folds: tuple[int, ...]


def plan(config: Synthetic) -> Plan:
    """Deal out classes, recordings and folds; a pure function of the settings."""
    rng = numpy_rng(config.seed, "plan")
    n_classes = len(config.classes)
    weights = config.imbalance ** -(np.arange(n_classes) / max(1, n_classes - 1))
    counts = _divide(config.n_clips, weights, np.full(n_classes, config.n_clips))
    wanted = config.n_groups or min(config.n_clips, max(config.n_clips // 3, n_classes * config.n_folds))
    n_groups = _divide(wanted, counts.astype(float), counts)
    rows: list[tuple[str, int, int]] = []  # class, group, fold
    first_group = first_fold = 0
    for name, count, groups in zip(config.classes, counts.tolist(), n_groups.tolist(), strict=True):
        order = rng.permutation(groups)
        for i in range(count):
            g = i % groups
            rows.append((name, first_group + g, 1 + (first_fold + int(order[g])) % config.n_folds))
        first_group += groups
        first_fold += groups
    rows = [rows[i] for i in rng.permutation(len(rows))]
    labels = []
    for name, _, _ in rows:
        others = [c for c in config.classes if c != name]
        extra = min(len(others), int(rng.choice(3, p=(0.3, 0.45, 0.25)))) if config.task == "multilabel" else 0
        p = np.array([weights[config.classes.index(c)] for c in others])
        more = rng.choice(len(others), extra, replace=False, p=p / p.sum()).tolist() if extra else list[int]()
        labels.append((name, *(others[k] for k in more)))
    width = len(str(config.n_clips - 1))
    names = tuple(f"{i:0{width}d}.{config.file_format}" for i in range(config.n_clips))
    return Plan(names, tuple(labels), tuple(r[1] for r in rows), tuple(r[2] for r in rows))


def generate(
    config: Synthetic,
    directory: Path | str,
    *,
    workers: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Write the data set; returns its directory. Files that are there and whole are not made again.

    The samples are the same for any number of workers; on another processor or NumPy build the last bit of some may
    differ, since sine and exponential do.

    Raises:
        UserError: the directory holds a data set of other settings, or something else.
    """
    directory, tell = Path(directory), progress or (lambda done, total, what: None)
    _claim(config, directory)
    made = plan(config)
    (directory / "audio").mkdir(exist_ok=True)
    todo = [i for i, name in enumerate(made.names) if not _whole(directory / "audio" / name, config)]
    n_workers = min(workers or usable_cores(), 1 + len(todo) // (2 * _CHUNK))
    chunks = [todo[k : k + _CHUNK] for k in range(0, len(todo), _CHUNK)]
    settings = config.to_dict()
    jobs = ({"config": settings, "clips": chunk, "directory": str(directory / "audio")} for chunk in chunks)
    done = config.n_clips - len(todo)
    tell(done, config.n_clips, "generating")
    for chunk, reply in zip(chunks, ordered_map("audio_cls.data.synthesis:write_job", jobs, n_workers), strict=True):
        if isinstance(reply, WorkerDied):
            raise UserError(f"{directory}: clips {chunk[0]} to {chunk[-1]} could not be made: {reply}")
        done += len(chunk)
        tell(done, config.n_clips, made.names[chunk[-1]])
    _write(directory / "meta.csv", _table(config, made))
    return directory


class Generated(Source, kind="synthetic"):
    """A data set that `data generate` made."""

    order: ClassVar[int] = 20
    looks_for: ClassVar[str] = _SETTINGS
    name: str | None = None
    """Of the data set; none takes the folder's."""

    def detect(self, path: Path) -> bool:
        return (path / _SETTINGS).is_file()

    def read(self, path: Path) -> Manifest:
        return _read(path, self.name)


def _read(root: Path, name: str | None) -> Manifest:
    """Read a generated data set.

    Raises:
        UserError: it is unfinished, or its settings or table make no sense.
    """
    settings = root / _SETTINGS
    if not settings.is_file():
        raise UserError(f"{root}: not a generated data set ({_SETTINGS} is missing)")
    config = Synthetic.from_json(settings.read_text(encoding="utf-8"), str(settings))
    if not (root / "meta.csv").is_file():
        raise UserError(f"{root}: unfinished (meta.csv is missing): run the generator again with the same settings")
    made = read_table(root, classes=sorted(config.classes), task=config.task, name=name or root.resolve().name)
    return Manifest(made.name, made.clips, made.classes, made.task, "synthetic", made.note, made.root)


def _divide(total: int, weights: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Whole numbers that sum to `total`, in proportion to `weights`, each from 1 to `most`."""
    parts = np.clip(np.floor(weights / weights.sum() * total).astype(np.int64), 1, most)
    while (left := total - int(parts.sum())) != 0:
        want = weights / weights.sum() * total - parts
        if left > 0:
            parts[int(np.argmax(np.where(parts < most, want, -np.inf)))] += 1
        else:
            parts[int(np.argmin(np.where(parts > 1, want, np.inf)))] -= 1
    return parts


def _claim(config: Synthetic, directory: Path) -> None:
    settings = directory / _SETTINGS
    if settings.exists():
        there = Synthetic.from_json(settings.read_text(encoding="utf-8"), str(settings))
        if there != config:
            differing = "; ".join(f"{key} is {a} there, {b} asked" for key, (a, b) in there.diff(config).items())
            raise UserError(f"{directory} holds a data set of other settings: {differing}. Choose another directory")
        return
    if directory.exists() and any(directory.iterdir()):
        raise UserError(f"{directory} is not empty and holds no {_SETTINGS}; choose another directory")
    directory.mkdir(parents=True, exist_ok=True)
    _write(settings, config.to_json() + "\n")


def _whole(path: Path, config: Synthetic) -> bool:
    if not path.exists():
        return False
    import soundfile

    try:
        info = soundfile.info(path)
    except (soundfile.SoundFileError, RuntimeError):
        return False
    return (info.frames, info.samplerate) == (round(config.clip_seconds * config.sample_rate), config.sample_rate)


def _table(config: Synthetic, made: Plan) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["path", "labels" if config.task == "multilabel" else "label", "fold", "group"])
    for name, labels, group, fold in zip(made.names, made.labels, made.groups, made.folds, strict=True):
        writer.writerow([f"audio/{name}", ";".join(sorted(labels)), fold, f"r{group}"])
    return out.getvalue()


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
