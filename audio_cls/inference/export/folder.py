"""Write a trained run as a folder: models, class names, card, script. The folder appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from audio_cls.core.errors import UserError
from audio_cls.core.notices import progress
from audio_cls.core.workspace import fsync_folder
from audio_cls.inference.export.card import Card, write_card
from audio_cls.inference.export.conversion import INPUT, capture, load_extra, write_int8, write_onnx, write_program
from audio_cls.inference.export.program import ClipProgram
from audio_cls.inference.exported import (
    INT8,
    MANIFEST,
    ONNX,
    PROGRAM,
    ExportedLabeller,
    Manifest,
    export_of,
)
from audio_cls.inference.opening import run_labeller
from audio_cls.inference.run_labeller import RunLabeller
from audio_cls.metrics.predictions import Predictions
from audio_cls.runs.evaluation import Scored, score_run
from audio_cls.runs.preparation import Runtime
from audio_cls.runs.pretrained import file_hash
from audio_cls.tracking import RunInfo

__all__ = ["Exported", "clip_program", "export_run", "write_manifest", "write_models"]

SCRIPT, CARD = "run_onnx.py", "README.md"
TOLERANCE = 1e-4
"""Largest difference of a probability between an exported model and the run."""
_PARITY_CLIPS, _CALIBRATION_CLIPS, _INT8_CLIPS = 4, 64, 1000
_TIMED_SECONDS = 0.5


@dataclass(frozen=True)
class Exported:
    """An exported folder.

    Attributes:
        folder: where it is.
        parity: file -> largest difference of a probability to the run's, on `clips`.
        clips: what parity was measured on, in words.
        times_real_time: file -> seconds of audio judged in a second, on one thread.
        int8: metric, its value by floats and in 8 bits, and the number of validation clips; None without 8 bits.
    """

    folder: Path
    parity: dict[str, float]
    clips: str
    times_real_time: dict[str, float]
    int8: tuple[str, float, float, int] | None = None


def export_run(runtime: Runtime, info: RunInfo, folder: Path, *, int8: bool = False) -> Exported:
    """Export a run: waveform in, probabilities out, as its evaluation computes them in single precision.

    Args:
        folder: is made; an earlier export there is replaced.
        int8: also write an ONNX model in 8 bits, and measure on validation clips what that costs.

    Raises:
        UserError: for a run that cannot be exported, a folder that holds something else, a missing package, or a model that
            differs from the run by more than 1e-4.
    """
    folder = folder.resolve()
    _check_place(folder)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        load_extra(package)
    labeller = run_labeller(runtime.tracker, info, torch.device("cpu"))
    labeller.precision = "fp32"
    scored, reason = _scored(runtime, info)
    if int8 and scored is None:
        raise UserError(
            f"--int8 needs the run's corpus, to choose ranges on training clips and to measure what it costs: {reason}"
        )
    with _whole(folder) as scratch, progress(f"export {info.name}") as show:
        show(0, 4, "capturing")
        write_models(labeller, scratch)
        show(1, 4, "comparing with the run")
        waveforms, words = _parity_clips(labeller, scored)
        files = [PROGRAM, ONNX]
        if int8:
            assert scored is not None
            training = scored.split.train
            chosen = training[np.linspace(0, len(training) - 1, min(len(training), _CALIBRATION_CLIPS)).astype(int)]
            write_int8(scratch / ONNX, scratch / INT8, [scored.corpus.waveform(int(i)) for i in chosen])
            files.append(INT8)
        write_manifest(labeller, scratch, files, info.run_id)
        parity = {file: _difference(labeller, _open(scratch / file), waveforms) for file in (PROGRAM, ONNX)}
        _check_parity(parity, words)
        show(2, 4, "measuring")
        times = {file: _times_real_time(_open(scratch / file)) for file in files}
        cost = _int8_cost(scratch, scored) if int8 and scored is not None else None
        exported = Exported(folder, parity, words, times, cost)
        show(3, 4, "writing the card")
        shutil.copyfile(Path(__file__).with_name(SCRIPT), scratch / SCRIPT)
        sizes = {file: (scratch / file).stat().st_size for file in files}
        card = Card(labeller, info, scored, reason, sizes, times, parity, words, cost)
        (scratch / CARD).write_text(write_card(card), encoding="utf-8")
    return exported


def clip_program(labeller: RunLabeller, *, fft: bool) -> ClipProgram:
    """Return the module that is exported; `fft` as in `FeatureExtractor.exportable`."""
    experiment, features = labeller.experiment, labeller.features
    halves = experiment.features.framewise and experiment.features.output_domain != "waveform"
    return ClipProgram(
        features.exportable(fft=fft) or features,
        labeller.classifier,
        experiment.data,
        framewise=experiment.features.framewise,
        halves=halves,
        task=labeller.task,
    )


def write_models(labeller: RunLabeller, folder: Path) -> None:
    """Write the program and the ONNX model."""
    experiment = labeller.experiment
    what = f"model.kind={experiment.model.kind} on features.kind={experiment.features.kind}"
    write_program(capture(clip_program(labeller, fft=True), labeller.sample_rate, what), folder / PROGRAM)
    facts = {
        "classes": json.dumps(labeller.classes, ensure_ascii=False),
        "task": labeller.task,
        "sample_rate": str(labeller.sample_rate),
        "run": labeller.name,
    }
    write_onnx(capture(clip_program(labeller, fft=False), labeller.sample_rate, what), folder / ONNX, facts, what)


def write_manifest(labeller: RunLabeller, folder: Path, files: list[str], run_id: str = "") -> None:
    """Write `classes.json` for models that are in the folder."""
    manifest = Manifest(
        format="audio_cls export 1",
        name=labeller.name,
        run_id=run_id,
        classes=labeller.classes,
        task=labeller.task,  # type: ignore[arg-type]
        sample_rate=labeller.sample_rate,
        window_seconds=labeller.window_seconds,
        pad=labeller.pad,  # type: ignore[arg-type]
        evaluation=labeller.evaluation.to_dict(),
        thresholds=None if labeller.thresholds is None else labeller.thresholds.tolist(),
        input=f"{INPUT}: (batch, samples) float32, mono, in [-1, 1], at sample_rate; recordings of one batch have one length",
        files={file: file_hash(folder / file) for file in files},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


# -- measuring ------------------------------------------------------------------------------------------------------


def _scored(runtime: Runtime, info: RunInfo) -> tuple[Scored | None, str]:
    """Return the run's validation clips with their figures, or why there are none."""
    try:
        return score_run(runtime, info, "validation"), ""
    except UserError as error:
        return None, str(error)


def _parity_clips(labeller: RunLabeller, scored: Scored | None) -> tuple[list[NDArray[np.float32]], str]:
    """Return waveforms to compare models on, one shorter and one longer than a window among them; and what they are."""
    if scored is None:
        random = np.random.default_rng(0)
        n = labeller.window_samples or labeller.sample_rate
        clips = [random.normal(0, 0.1, n).astype(np.float32) * np.linspace(0, 1, n, dtype=np.float32) for _ in range(2)]
        words = "generated noise"
    else:
        rows = scored.clips[np.linspace(0, len(scored.clips) - 1, _PARITY_CLIPS).astype(int)]
        clips = [scored.corpus.waveform(int(i)) for i in np.unique(rows)]
        words = f"{len(clips)} validation clips"
    short = clips[0][: max(1, (labeller.window_samples or len(clips[0])) // 3)]
    return [*clips, short, np.concatenate(clips)], f"{words}, a part of one and all in a row"


def _difference(labeller: RunLabeller, exported: ExportedLabeller, waveforms: list[NDArray[np.float32]]) -> float:
    return max(float(np.abs(exported.scores(x) - labeller.scores(x)).max()) for x in waveforms)


def _check_parity(parity: dict[str, float], clips: str) -> None:
    for file, difference in parity.items():
        if not difference <= TOLERANCE:
            raise UserError(
                f"{file} differs from the run by {difference:.2g} in a probability ({clips}); at most {TOLERANCE:g} is allowed. "
                "Nothing was written"
            )


def _open(path: Path) -> ExportedLabeller:
    return ExportedLabeller(path, torch.device("cpu"))


def _times_real_time(exported: ExportedLabeller) -> float:
    """Return how many seconds of audio a model judges in a second, in batches of eight windows."""
    seconds = exported.window_seconds or 5.0
    x = np.random.default_rng(0).normal(0, 0.1, (8, round(seconds * exported.sample_rate))).astype(np.float32)
    exported.window_scores(x)
    n, began = 0, time.perf_counter()
    while n == 0 or time.perf_counter() - began < _TIMED_SECONDS:
        exported.window_scores(x)
        n += 1
    return n * len(x) * seconds / (time.perf_counter() - began)


def _int8_cost(folder: Path, scored: Scored) -> tuple[str, float, float, int]:
    """Return the run's metric on validation clips by the ONNX models of floats and of 8 bits, and the number of clips."""
    metric = scored.experiment.training.metric.removeprefix("val/")
    rows = scored.clips
    if len(rows) > _INT8_CLIPS:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:_INT8_CLIPS])
    place = {int(row): i for i, row in enumerate(scored.clips)}
    chosen = [place[int(row)] for row in rows]
    figures = []
    for file in (ONNX, INT8):
        labeller = _open(folder / file)
        scores = np.stack([labeller.scores(scored.corpus.waveform(int(i))) for i in rows])
        figures.append(_figures(scored.predictions, scores, chosen))
    floats, eight_bits = figures
    defined = [key for key in floats if np.isfinite([floats[key], eight_bits[key]]).all()]
    name = next(key for key in (metric, "macro_f1", *defined) if key in defined)
    return name, floats[name], eight_bits[name], len(rows)


def _figures(of: Predictions, scores: NDArray[np.float64], chosen: list[int]) -> dict[str, float]:
    part = replace(
        of,
        clips=tuple(of.clips[i] for i in chosen),
        scores=scores,
        targets=np.asarray(of.targets)[chosen],
        groups=None,
        rows=of.rows[chosen],
        thresholds=None,
        tuned_on="",
    )
    return dict(part.evaluation.overall)


# -- the folder -------------------------------------------------------------------------------------------------------


def _check_place(folder: Path) -> None:
    """Raise a UserError unless a folder can be made there or holds an earlier export."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"--to {folder}: is a file. Name a folder that does not exist yet")
    if any(folder.iterdir()) and export_of(str(folder)) is None:
        raise UserError(
            f"--to {folder}: holds other files, and is left as it is. Name a folder that does not exist yet, or an earlier export"
        )


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Give a scratch folder that takes the place of `folder` at the end, unless something goes wrong."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".export-"))
    except OSError as error:
        raise UserError(f"--to {folder}: cannot be written: {error.strerror or error}") from None
    former = scratch.with_name(f"{scratch.name}-former")
    try:
        yield scratch
        scratch.chmod(0o755)
        for path in scratch.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        if folder.exists():
            folder.rename(former)
        scratch.rename(folder)
        fsync_folder(folder.parent)
    finally:
        if former.exists() and not folder.exists():  # interrupted between the two
            former.rename(folder)
        for path in (former, scratch):
            shutil.rmtree(path, ignore_errors=True)
