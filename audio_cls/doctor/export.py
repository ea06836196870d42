"""What every model and every front end of audio must hold so that a run with it can be exported: `torch.export` and ONNX.

The program of `audio-cls export` takes clips of any length in batches of any size; a model in it sees windows of one length, any number of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audio_cls.components.features import FeatureExtractor, Features
from audio_cls.components.models import Model
from audio_cls.core.errors import UserError
from audio_cls.data.settings import Data
from audio_cls.doctor.findings import Check, Skipped, Wrong, expect, same, seeded
from audio_cls.doctor.models import built
from audio_cls.inference.export.conversion import capture, innermost, load_extra, quiet_exporters, write_onnx
from audio_cls.inference.export.program import ClipProgram
from audio_cls.inference.exported import onnx_session
from audio_cls.training.batches import fit_length

__all__ = ["FEATURE_CHECKS", "MODEL_CHECKS", "SLOW"]

_CLOSE = 1e-4
_RATE = 8000
_LENGTHS = (_RATE, 3001, 2 * _RATE + 11)
"""Samples of clips: one window, less than one, more than one."""


# -- models -----------------------------------------------------------------------------------------------------------


def check_model_export(config: Model) -> None:
    module, x = built(config)
    program = _exported(module, x).module()
    with torch.no_grad():
        for batch in (x, x[:1]):
            expect(
                same(program(batch), module(batch), _CLOSE),
                f"exported, it gives other logits for a batch of {len(batch)}",
                "avoid state in forward, and Python numbers computed from tensors",
            )


def check_model_onnx(config: Model) -> None:
    _require_packages()
    module, x = built(config)
    run = _as_onnx(_exported(module, x))
    with torch.no_grad():
        for batch in (x, x[:1]):
            expect(
                same(torch.from_numpy(run(batch.numpy())), module(batch), _CLOSE),
                f"as ONNX it gives other logits for a batch of {len(batch)}",
                "avoid Python numbers computed from tensors, and operations whose result is not defined by the shapes alone",
            )


def _exported(module: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    """Return what `torch.export` makes of a module in evaluation, for batches (batch, *input_shape) of any size.

    Raises:
        Wrong: where it cannot, or fixes the size of the batch.
    """
    sizes = ({0: torch.export.Dim("batch", min=1)},)
    try:
        with torch.no_grad(), quiet_exporters():
            return torch.export.export(module.eval(), (x,), dynamic_shapes=sizes)
    except Exception as error:
        if "Constraints violated (batch)" in str(error) or "marked batch as dynamic" in str(error):
            raise Wrong(
                f"torch.export fixes the size of the batch, here {len(x)}",
                "do not make a Python number of it: x.flatten(1) and x.shape[0] in place of len(x), int() or a number that is written out",
            ) from None
        raise Wrong(
            f"torch.export cannot export it: {innermost(error)}",
            "avoid if and for that depend on values of tensors, .item() and numpy in forward",
        ) from None


# -- features ---------------------------------------------------------------------------------------------------------


class _Probe(nn.Module):
    """Fixed random logits of features, so that any difference of the features shows in a probability."""

    weights: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        n = int(np.prod(shape))
        self.register_buffer("weights", seeded(n, 4) / n**0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        x = x - x.mean(1, keepdim=True)
        return x / (x.square().mean(1, keepdim=True).sqrt() + 1) @ self.weights


def check_features_onnx(config: Features) -> None:
    if config.input_domain != "waveform":
        raise Skipped(f"exported runs take audio, and this takes a corpus of {config.input_domain}s")
    _require_packages()
    data = Data(sample_rate=_RATE, clip_seconds=1.0)
    config = config.fitted(_RATE, 1.0)
    extractor = config.build(_RATE)
    program = _program(config, extractor, data)
    for n in _LENGTHS:
        _compare(program, config, extractor, data, n, "the front end for exported models (exportable)")
    try:
        captured = capture(program, _RATE, "it")
    except UserError as error:
        raise Wrong(
            str(error).removeprefix("it cannot be exported: "),
            "write forward in operations on whole tensors, or let exportable() return a twin that is (see SegmentFeatures)",
        ) from None
    run = _as_onnx(captured)
    for n in _LENGTHS:
        _compare(lambda x: torch.from_numpy(run(x.numpy())), config, extractor, data, n, "as ONNX it")


def _program(config: Features, extractor: FeatureExtractor, data: Data) -> ClipProgram:
    n_frames = extractor.frames(data.clip_samples)
    with torch.no_grad():
        shape = tuple(extractor(torch.zeros(1, data.clip_samples)).shape[1:])
    expect(not config.framewise or shape[-1] == n_frames, f"frames says {n_frames}, forward gives {shape}", "see shape")
    front = extractor.exportable(fft=False) or extractor
    program = ClipProgram(front, _Probe(shape), data, framewise=config.framewise, halves=False, task="multilabel")
    return program.eval()


def _compare(
    program: Callable[[Tensor], Tensor], config: Features, extractor: FeatureExtractor, data: Data, n: int, what: str
) -> None:
    """Refuse a program whose probabilities of a clip of `n` samples are not those of the extractor's own features."""
    clip = (0.1 * seeded(n)).numpy()
    padded = fit_length(clip, data.clip_samples, data.pad) if config.framewise else clip
    with torch.no_grad():
        x = extractor(torch.from_numpy(padded)[None])
        if config.framewise:
            length = extractor.frames(data.clip_samples)
            (start,) = data.evaluation.starts(x.shape[-1], length, data.rate / extractor.hop_length).tolist()
            x = x[..., start : start + length]
        wanted = _Probe(tuple(x.shape[1:]))(x).sigmoid()
        found = program(torch.from_numpy(np.stack([clip, clip])))[1:]
    difference = float((found - wanted).abs().max())
    expect(
        difference <= _CLOSE,
        f"{what} gives other features than forward for a clip of {n} samples at {_RATE} Hz",
        "let exportable() compute what forward does, frames centred on multiples of the hop",
    )


# -- ONNX -------------------------------------------------------------------------------------------------------------


def _require_packages() -> None:
    try:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            load_extra(package)
    except UserError as error:
        raise Skipped(str(error)) from None


def _as_onnx(program: torch.export.ExportedProgram) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            write_onnx(program, path, {}, "it")
            return onnx_session(path)
        except UserError as error:
            raise Wrong(
                str(error).replace(f"{path}: ", "onnxruntime: "),
                "use operations that ONNX has; https://onnx.ai/onnx/operators lists them",
            ) from None


MODEL_CHECKS: dict[str, Check] = {"export": check_model_export, "onnx": check_model_onnx}
FEATURE_CHECKS: dict[str, Check] = {"onnx": check_features_onnx}
SLOW = frozenset({"export", "onnx"})
"""Checks of a second or more."""
