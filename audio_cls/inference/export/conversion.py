"""A program as files: `torch.export`'s archive without pickled parts, ONNX, and ONNX with 8-bit weights and activations."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from audio_cls.core.errors import UserError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = [
    "INPUT",
    "OUTPUT",
    "capture",
    "innermost",
    "load_extra",
    "quiet_exporters",
    "write_int8",
    "write_onnx",
    "write_program",
]

INPUT, OUTPUT = "waveform", "probabilities"
_SCOPES = "pkg.torch.onnx.name_scopes"  # names the module of an operation
_OPSET = 20  # onnxruntime 1.17 (2024) and later


def load_extra(name: str) -> ModuleType:
    """Import a package of the extra `export`.

    Raises:
        UserError: where it is not installed, with the command that does.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(
            f"the package {package} is needed and cannot be loaded ({error}). Install it: pip install 'audio_cls[export]'"
        ) from None


def capture(module: torch.nn.Module, sample_rate: int, what: str) -> ExportedProgram:
    """Capture a module that takes waveforms (batch, samples), for any batch and length.

    Args:
        what: the parts in words, for the error.

    Raises:
        UserError: where `torch.export` cannot.
    """
    example = torch.zeros(2, 3 * sample_rate + 1)
    axes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("samples", min=1)}
    try:
        with torch.no_grad(), quiet_exporters():
            return torch.export.export(module.eval(), (example,), dynamic_shapes=(axes,))
    except Exception as error:
        raise UserError(f"{what} cannot be exported: torch.export says: {innermost(error)}") from error


def write_program(program: ExportedProgram, path: Path) -> None:
    """Write `torch.export`'s archive. Its example inputs, the only part that would be pickled, are left out."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    examples, program.example_inputs = program.example_inputs, None
    try:
        with quiet_exporters():
            torch.export.save(program, path)
    finally:
        program.example_inputs = examples


def write_onnx(program: ExportedProgram, path: Path, facts: Mapping[str, str], what: str) -> None:
    """Write an ONNX model of one file, with `facts` as its metadata.

    Raises:
        UserError: where the program holds an operation that ONNX does not have.
    """
    load_extra("onnxscript")
    onnx = load_extra("onnx")
    try:
        with torch.no_grad(), quiet_exporters():
            made = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT], opset_version=_OPSET
            )
    except Exception as error:
        raise UserError(f"{what} cannot be written as ONNX: {innermost(error)}") from error
    assert made is not None
    model = made.model_proto
    del model.graph.value_info[:]  # shapes between operations, which fused operations no longer have
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        kept = [(p.key, p.value) for p in node.metadata_props if p.key == _SCOPES]
        del node.metadata_props[:]  # paths of this machine among them
        for key, value in kept:
            node.metadata_props.add(key=key, value=value)
    model.producer_name = "audio_cls"
    onnx.helper.set_model_props(model, dict(facts))
    onnx.save(model, str(path))


def write_int8(source: Path, path: Path, clips: Sequence[NDArray[np.float32]]) -> None:
    """Write an ONNX model whose classifier computes in 8 bits; its features stay as they are.

    Weights are quantised by channel, activations by their range on `clips`. Quantisation at run time ("dynamic") would need no clips,
    but onnxruntime's convolutions of that kind are two to three times as slow as those of floats.

    Args:
        source: an ONNX model that `write_onnx` has written.
        clips: (samples,) waveforms, of training.
    """
    onnx = load_extra("onnx")
    quantization: Any = load_extra("onnxruntime.quantization")
    model = onnx.load(str(source))
    nodes = [
        node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul") and _in_classifier(node)
    ]
    inputs: Iterator[dict[str, Any]] = iter([{INPUT: clip[None]} for clip in clips])

    class Clips(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            return next(inputs, None)

    with quiet_exporters():
        quantization.quantize_static(
            str(source),
            str(path),
            Clips(),
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def _in_classifier(node: Any) -> bool:
    scopes = next((p.value for p in node.metadata_props if p.key == _SCOPES), "")
    return "'classifier" in scopes


def innermost(error: BaseException) -> str:
    """Return the sentence of the innermost error: the outer ones of PyTorch's exporters are pages long."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'without a message'}"


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Keep the exporters' remarks on optional packages and coming changes from the user."""
    names = ("torch.onnx", "torch.export", "torch._export", "torch.fx", "onnxscript", "onnx_ir", "root")
    loggers = [logging.getLogger(None if name == "root" else name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stderr(io.StringIO()),
        ):  # torch.export prints the graph that it could not make
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
