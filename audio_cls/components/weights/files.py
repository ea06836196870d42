"""Read tensors from a file of weights, without running anything that it holds."""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open

from audio_cls.core.errors import UserError

__all__ = ["read_tensors"]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Keys below which training programs store the tensors of a model."""
PREFIXES = ("module.", "_orig_mod.")
"""What data-parallel training and `torch.compile` put before the names of all tensors."""
ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
AGAIN = "Download or copy it again"


class _NumpyValue:
    """Stands in for a NumPy number or array of a checkpoint, which nobody needs here: it ignores what it is made of."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


NUMPY_NAMES = [
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    "numpy._core.numeric._frombuffer",
    "numpy.core.numeric._frombuffer",
    "numpy.ndarray",
    "numpy.dtype",
]
"""What a pickle names to rebuild NumPy values. Published files have them beside the weights: PANNs the state of their sampler."""


def read_tensors(path: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors or PyTorch file by name, on the CPU.

    The prefixes of data-parallel training and of `torch.compile` are removed. NumPy values beside the tensors are passed over.

    Args:
        name: what the file is called in messages.

    Raises:
        UserError: for a file that is neither, that is damaged or cut off, that holds anything but tensors and plain values, or
            values that are not finite.
    """
    found = _unwrapped(_read_pytorch(path, name) if _is_pytorch(path, name) else _read_safetensors(path, name))
    tensors = {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise UserError(f"{name}: no tensors in it, found {', '.join(map(str, list(found)[:5])) or 'nothing'}")
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), ""):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    broken = [k for k, v in tensors.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if broken:
        raise UserError(f"{name}: the weights {broken[0]} are not all finite numbers")
    return tensors


def _is_pytorch(path: Path, name: str) -> bool:
    """Whether a file is PyTorch's: a zip archive, or a pickle as it was written before version 1.6.

    Raises:
        UserError: for an empty file, a web page, and an archive without its end.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise UserError(f"{name}: the file is empty. {AGAIN}")
    if head.lstrip()[:1] == b"<":
        raise UserError(f"{name}: this is a web page, not a file of weights. Use the address of the file itself")
    if head.startswith(ZIP) and not zipfile.is_zipfile(path):
        raise UserError(f"{name}: the file is cut off after {path.stat().st_size:,} bytes. {AGAIN}")
    return head.startswith((ZIP, PICKLE))


def _read_safetensors(path: Path, name: str) -> dict[str, Any]:
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError) as error:
        size, whole = path.stat().st_size, _safetensors_size(path)
        if size < whole:
            raise UserError(f"{name}: the file is cut off after {size:,} of {whole:,} bytes. {AGAIN}") from None
        raise UserError(f"{name}: neither a safetensors file nor a PyTorch file of weights: {error}") from None


def _safetensors_size(path: Path) -> int:
    """Return how many bytes a file should have by the header of the safetensors format; 0 where it has no such header."""
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if file.read(1) != b"{":
            return 0
        if path.stat().st_size < start:
            return start
        file.seek(8)
        try:
            header = json.loads(file.read(start - 8))
            return start + max(
                (int(entry["data_offsets"][1]) for key, entry in header.items() if key[:2] != "__"), default=0
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return 0


def _read_pytorch(path: Path, name: str) -> Mapping[str, Any]:
    if zipfile.is_zipfile(path):
        _check_archive(path, name)
    stand_ins: list[Any] = [(_NumpyValue, numpy_name) for numpy_name in NUMPY_NAMES]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # about the pickle's protocol
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        _refuse(error, path, name)
    if not isinstance(found, Mapping):
        raise UserError(f"{name}: holds a {type(found).__name__}, expected tensors by name (a state_dict)")
    return found


def _check_archive(path: Path, name: str) -> None:
    """Refuse a program of TorchScript and an archive with damaged contents, which `torch.load` does not check."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any("/code/" in member.filename for member in members):
            raise UserError(
                f"{name}: this is a TorchScript program, which is not run. Save the state_dict of its model as safetensors"
            )
        try:
            for member in members:
                if member.CRC:  # PyTorch can leave checksums out, as 0
                    with archive.open(member) as file:
                        while file.read(1 << 20):
                            pass
        except (zipfile.BadZipFile, OSError, ValueError):
            raise UserError(
                f"{name}: the file is damaged ({member.filename} does not have its checksum). {AGAIN}"
            ) from None


def _refuse(error: Exception, path: Path, name: str) -> NoReturn:
    """Raise a `UserError` for what `torch.load` said."""
    text = " ".join(str(error).split())
    if isinstance(error, EOFError | IndexError | struct.error) or "EOF" in text:
        raise UserError(f"{name}: the file is cut off after {path.stat().st_size:,} bytes. {AGAIN}") from None
    if isinstance(error, pickle.UnpicklingError):
        what = re.search(r"GLOBAL ([\w.]+)", text)
        named = f" ({what[1]})" if what else ""
        raise UserError(
            f"{name}: it holds Python objects besides tensors{named}, which are not loaded, since that would run code of the file. If "
            "you trust it, save its state_dict as safetensors where it came from"
        ) from None
    raise UserError(f"{name}: not a readable PyTorch file: {text[:200]}") from None


def _unwrapped(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tensors of a file that also holds other things, such as the epoch."""
    for key in WRAPPERS:
        inner = found.get(key)
        if isinstance(inner, Mapping) and inner:
            return _unwrapped(inner)
    return found
