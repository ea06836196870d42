"""Checkpoints: atomic, complete, portable between devices, no pickle.

One checkpoint is one safetensors file: tensors, and everything else as JSON in its header. It is written beside its place,
synced to disk and renamed, so that a reader finds the old one or the new one, never a part. Tensors are stored on the CPU in
row-major order and copied into place on loading, whatever device or memory format they go to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from audio_cls.errors import UserError
from audio_cls.workspace import atomic_write

__all__ = ["Checkpoint", "CheckpointStore", "load_optimizer_state", "optimizer_state", "read", "read_state", "write"]

FORMAT = 1


@dataclass
class Checkpoint:
    """What a run needs to go on: `tensors` by dotted name, `state` as JSON values."""

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors below `prefix.`, without it."""
        return {k[len(prefix) + 1 :]: v for k, v in self.tensors.items() if k.startswith(prefix + ".")}


def write(path: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write atomically: temporary file, fsync, rename, fsync of the folder."""
    data = {k: v.detach().to("cpu").contiguous() for k, v in tensors.items()}
    meta = {"audio_cls": json.dumps({"format": FORMAT, **state})}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, serialise(data, metadata=meta))


def read(path: Path) -> Checkpoint:
    """Read onto the CPU.

    Raises:
        UserError: when the file is no checkpoint of ours, is damaged, or was written by a newer version.
    """
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            meta = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable checkpoint: {error}") from None
    if "audio_cls" not in meta:
        raise UserError(f"{path}: a safetensors file, but no checkpoint of audio_cls")
    state = json.loads(meta["audio_cls"])
    if state.pop("format", 0) > FORMAT:
        raise UserError(f"{path}: written by a newer version of audio_cls")
    return Checkpoint(tensors, state)


def read_state(file: BinaryIO, name: str) -> dict[str, Any]:
    """The state of a checkpoint, from the head of its open file, without its tensors.

    Raises:
        UserError: as `read`.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= size - 8:
            raise ValueError(f"cut short or damaged ({size} bytes)")
        head = json.loads(file.read(length))
        end = max((v["data_offsets"][1] for k, v in head.items() if k != "__metadata__"), default=0)
        if 8 + length + end != size:
            raise ValueError(f"cut short or damaged ({size} bytes instead of {8 + length + end})")
        state: dict[str, Any] = json.loads(head["__metadata__"]["audio_cls"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{name}: not a readable checkpoint: {error}") from None
    if state.pop("format", 0) > FORMAT:
        raise UserError(f"{name}: written by a newer version of audio_cls")
    return state


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The optimiser's state as tensors `"<parameter>.<name>"` and the plain values that are no tensors."""
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                plain[f"{index}.{name}"] = value
    return tensors, plain


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any]
) -> None:
    """Put back what `optimizer_state` gave, on the parameters' device and in their memory format."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape and value.ndim > 0:
            placed = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        elif name == "step" and not optimizer.defaults.get("fused"):
            placed = value.clone()
        else:
            placed = value.to(parameter.device)
        optimizer.state[parameter][name] = placed
    for key, value in plain.items():
        index, name = key.split(".", 1)
        optimizer.state[parameters[int(index)]][name] = value


class CheckpointStore:
    """The checkpoints of one run in one folder: `last.safetensors`, and `best-<epoch>.safetensors` that it names.

    `previous` are folders of earlier attempts at the same run, nearest first: read, never written, so that a stalled worker
    which comes back cannot write over its successor's files. `renamed` maps the digest of the experiment that a checkpoint was
    written under to that of the one it knowingly goes on as (a larger budget).
    """

    def __init__(self, folder: Path, previous: tuple[Path, ...] = (), renamed: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.previous = previous
        self.renamed = dict(renamed or {})

    def save(self, last: Checkpoint, best: Checkpoint | None) -> None:
        """Make an epoch durable. `best` is given when this epoch is the best so far; it is written before `last` names it."""
        if best is not None:
            write(self._best(best.state["epoch"]), best.tensors, best.state)
        write(self.folder / "last.safetensors", last.tensors, last.state)
        if best is not None:
            for old in self.folder.glob("best-*.safetensors"):
                if old != self._best(best.state["epoch"]):
                    old.unlink(missing_ok=True)

    def load(self) -> tuple[Checkpoint, Path] | None:
        """The furthest checkpoint among this folder and the previous ones, with the folder it came from."""
        found: tuple[Checkpoint, Path] | None = None
        for folder in (self.folder, *self.previous):
            path = folder / "last.safetensors"
            if path.exists():
                checkpoint = read(path)
                if found is None or checkpoint.state["epoch"] > found[0].state["epoch"]:
                    found = checkpoint, folder
        if found is not None and found[0].state.get("experiment") in self.renamed:
            state = found[0].state
            state["experiment"] = self.renamed[state["experiment"]]
        return found

    def load_best(self, epoch: int, folder: Path | None = None) -> Checkpoint:
        """The best weights as of `epoch`, from this folder or an earlier attempt's."""
        for place in (folder or self.folder, self.folder, *self.previous):
            path = self._best(epoch, place)
            if path.exists():
                return read(path)
        raise UserError(f"{self.folder}: no best-{epoch:04d}.safetensors here or in an earlier attempt's folder")

    def adopt(self, epoch: int, folder: Path) -> None:
        """Bring the best weights of an earlier attempt into this folder, so that it stands alone."""
        mine, theirs = self._best(epoch), self._best(epoch, folder)
        if folder != self.folder and theirs.exists() and not mine.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(mine, theirs.read_bytes())

    def best_path(self, epoch: int) -> Path:
        """Where the best weights of this run lie."""
        return self._best(epoch)

    def size(self) -> int:
        """Bytes on disk."""
        return sum(os.path.getsize(p) for p in self.folder.glob("*.safetensors"))

    def _best(self, epoch: int, folder: Path | None = None) -> Path:
        return (folder or self.folder) / f"best-{epoch:04d}.safetensors"
