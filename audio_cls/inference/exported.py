"""An exported folder as a labeller: its `torch.export` program, or its ONNX model.

Nothing in the folder is code: the program's archive is refused if it holds anything that would have to be unpickled.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from audio_cls.core.errors import UserError, first_fault
from audio_cls.data.windows import Centre, EvaluationWindows
from audio_cls.inference.batching import Job
from audio_cls.inference.labeller import Labeller
from audio_cls.runs.pretrained import file_hash
from audio_cls.training.batches import fit_length

__all__ = ["INT8", "MANIFEST", "ONNX", "PROGRAM", "ExportedLabeller", "Manifest", "export_of", "onnx_session"]

MANIFEST, PROGRAM, ONNX, INT8 = "classes.json", "model.pt2", "model.onnx", "model.int8.onnx"
_LONGEST = 600.0  # seconds of a recording that is judged at once
_PLAIN = re.compile(
    r"[^/]+/(archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/[^/]+\.json|extra/[^/]+"
    r"|data/(weights|constants)/(weight_\d+|tensor_\d+|[^/]+_config\.json))"
)


class Manifest(BaseModel):
    """What `classes.json` of an exported folder holds."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: Literal["audio_cls export 1"]
    name: str
    run_id: str
    classes: list[str] = Field(min_length=1)
    task: Literal["multiclass", "multilabel"]
    sample_rate: int = Field(ge=1)
    """In Hz, of the waveforms."""
    window_seconds: float | None
    """Length of a window; null where recordings are judged as a whole."""
    pad: Literal["zero", "end", "tile"]
    """How a recording shorter than a window is filled, by the model itself."""
    evaluation: dict[str, Any]
    """Which windows of a longer recording the model combines, as in `data.evaluation`."""
    thresholds: list[float] | None
    """For each class the probability from which it is called, tuned on validation clips; null for one label a clip."""
    input: str
    files: dict[str, str]
    """SHA-256 of each model."""

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder.

        Raises:
            UserError: where it is missing or damaged.
        """
        path = folder / MANIFEST
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
        except ValidationError as error:
            raise UserError(f"{path}: damaged: {first_fault(error)}. Export the run again") from None


def export_of(name: str) -> Path | None:
    """Return the folder or model file of an export that a name means, None where it means none."""
    path = Path(name)
    try:
        folder = path.parent if path.suffix in (".pt2", ".onnx") else path
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        found = json.loads(text)
    except (OSError, ValueError):
        return None
    is_export = isinstance(found, dict) and str(found.get("format", "")).startswith("audio_cls export")
    return path if is_export else None


class ExportedLabeller(Labeller):
    """The model in an exported folder.

    A recording of up to ten minutes is judged at once, as the run's evaluation does. Of a longer one, each window is judged by its own
    samples: its first and last frames are then computed without their neighbours.

    Args:
        place: the folder, or one of its models; of a folder the `torch.export` program, or ONNX where there is none.
        device: of the program; ONNX runs on the CPU.

    Raises:
        UserError: for a file that is missing, damaged or not what was exported; where onnxruntime is needed and not installed.
    """

    def __init__(self, place: Path, device: torch.device) -> None:
        folder = place.parent if place.suffix in (".pt2", ".onnx") else place
        meta = Manifest.read(folder)
        model = place if place != folder else next((folder / f for f in (PROGRAM, ONNX) if f in meta.files), place)
        if model.name not in meta.files:
            raise UserError(f"{place}: not among the exported models. Allowed: {', '.join(meta.files)}")
        _check_digest(model, meta.files[model.name])
        self.name = f"{meta.name} ({model.name})" if place != folder else meta.name
        self.classes, self.task, self.sample_rate = meta.classes, meta.task, meta.sample_rate
        self.window_seconds, self.pad = meta.window_seconds, meta.pad
        self.thresholds = None if meta.thresholds is None else np.array(meta.thresholds)
        self.evaluation = EvaluationWindows.parse(meta.evaluation, f"{folder / MANIFEST}: evaluation") or Centre()
        self.window_rows = self.window_samples
        self._run = _program(model, device) if model.suffix == ".pt2" else onnx_session(model)

    def window_scores(self, waveforms: NDArray[np.float32]) -> NDArray[np.float64]:
        x = np.asarray(waveforms, dtype=np.float32)
        if self.window_seconds is not None and x.shape[1] < self.window_samples:
            x = np.stack([fit_length(row, self.window_samples, self.pad) for row in x])
        return self._run(np.ascontiguousarray(x)).astype(np.float64)

    def _cut(
        self, job: Job, blocks: Iterable[NDArray[np.float32]], n_samples: int | None, hop_seconds: float | None
    ) -> Iterator[Tensor]:
        if hop_seconds is not None or n_samples is None or n_samples > _LONGEST * self.sample_rate:
            yield from super()._cut(job, blocks, n_samples, hop_seconds)
            return
        waveform = np.concatenate([np.zeros(0, np.float32), *blocks])
        job.seconds = len(waveform) / self.sample_rate
        yield torch.from_numpy(waveform)[None]


def _check_digest(path: Path, expected: str) -> None:
    try:
        found = file_hash(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    if found != expected:
        raise UserError(
            f"{path}: damaged or replaced: SHA-256 {found[:12]}, {MANIFEST} says {expected[:12]}. Export the run again"
        )


def _program(path: Path, device: torch.device) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Load a `torch.export` program; nothing is unpickled."""
    refuse_pickle(path)
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise UserError(f"{path}: cannot be loaded: {type(error).__name__}: {str(error)[:300]}") from None
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    module = program.module()

    def run(waveforms: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return module(torch.from_numpy(waveforms).to(device)).cpu().numpy()

    return run


def onnx_session(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Load an ONNX model, for as many threads as PyTorch uses."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"{path}: onnxruntime is needed and cannot be loaded ({error}). Install it: pip install 'audio_cls[export]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"{path}: cannot be loaded: {type(error).__name__}: {str(error)[:300]}") from None
    return lambda waveforms: session.run(None, {session.get_inputs()[0].name: waveforms})[0]


def refuse_pickle(path: Path) -> None:
    """Raise a UserError unless an archive of `torch.export` holds plain numbers and JSON only."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename
                if re.fullmatch(r"[^/]+/data/sample_inputs/[^/]+\.pt", name) and member.file_size == 0:
                    continue
                if not _PLAIN.fullmatch(name) or (
                    name.endswith("_config.json") and _names_pickle(archive.read(member))
                ):
                    raise UserError(f"{path}: holds {name}, which would have to be unpickled, and is not loaded")
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{path}: damaged: {error}") from None


def _names_pickle(config: bytes) -> bool:
    entries = json.loads(config)["config"].values()
    return any(entry.get("use_pickle", True) for entry in entries)
