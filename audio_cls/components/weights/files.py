"""Read tensors from a file of weights, without running anything that it holds."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from audio_cls.core.errors import UserError

__all__ = ["read_tensors"]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Keys below which training programs store the tensors of a model."""


def read_tensors(path: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors or PyTorch file by name, on the CPU; the prefix `module.` of data-parallel training is removed.

    Args:
        name: what the file is called in messages.

    Raises:
        UserError: for a file that is neither, that holds anything but tensors and plain values, or values that are not finite.
    """
    found = _unwrapped(_read_pytorch(path, name) if _is_pytorch(path) else _read_safetensors(path, name))
    tensors = {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise UserError(f"{name}: no tensors in it, found {', '.join(map(str, list(found)[:5])) or 'nothing'}")
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    broken = [k for k, v in tensors.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if broken:
        raise UserError(f"{name}: the weights {broken[0]} are not all finite numbers")
    return tensors


def _is_pytorch(path: Path) -> bool:
    """Whether a file is PyTorch's: a zip archive, or a pickle as it was written before version 1.6."""
    with open(path, "rb") as file:
        return zipfile.is_zipfile(path) or file.read(1) == b"\x80"


def _read_safetensors(path: Path, name: str) -> dict[str, Any]:
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise UserError(f"{name}: neither a safetensors file nor a PyTorch file of weights: {error}") from None


def _read_pytorch(path: Path, name: str) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = str(error).partition("Unsupported ")[2] or str(error).partition("WeightsUnpickler error: ")[2]
        raise UserError(
            f"{name}: it holds Python objects besides tensors, which are not loaded, since that would run code of the file "
            f"({' '.join(what.split())[:120]}). Where you trust it, save its state_dict as safetensors"
        ) from None
    except Exception as error:
        raise UserError(f"{name}: not a readable PyTorch file: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, Mapping):
        raise UserError(f"{name}: holds a {type(found).__name__}, expected tensors by name (a state_dict)")
    return found


def _unwrapped(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tensors of a file that also holds other things, such as the epoch."""
    for key in WRAPPERS:
        inner = found.get(key)
        if isinstance(inner, Mapping) and inner:
            return _unwrapped(inner)
    return found
