"""Checkpoints: atomic, complete, portable between devices, no pickle.

One checkpoint is one safetensors file: tensors, and everything else as JSON in its header. It is written beside its place,
synced to disk and renamed, so that a reader finds the old one or the new one, never a part. Tensors are stored on the CPU in
row-major order and copied into place on loading, whatever device or memory format they go to. The header holds a SHA-256 over
tensors and state, which is verified on reading; files of format 1 have none and are checked for what can be seen.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import atomic_write

__all__ = [
    "Checkpoint",
    "CheckpointStore",
    "DamagedCheckpoint",
    "load_optimizer_state",
    "optimizer_state",
    "read",
    "read_state",
    "write",
]

FORMAT = 2  # since 2 the header holds a checksum
CHECKSUM = "sha256"
log = logging.getLogger(__name__)


class DamagedCheckpoint(UserError):
    """A file that is not what was written: cut short, changed, or no checkpoint at all."""


@dataclass
class Checkpoint:
    """What a run needs to continue: `tensors` by dotted name, `state` as JSON values."""

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors below `prefix.`, without it."""
        return {k[len(prefix) + 1 :]: v for k, v in self.tensors.items() if k.startswith(prefix + ".")}


def write(path: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write atomically: temporary file, fsync, rename, fsync of the folder."""
    data = {k: v.detach().to("cpu").contiguous() for k, v in tensors.items()}
    text = json.dumps({"format": FORMAT, **state})
    meta = {"audio_cls": text, CHECKSUM: _checksum(data, text)}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, serialise(data, metadata=meta))


def read(path: Path) -> Checkpoint:
    """Read onto the CPU.

    Raises:
        DamagedCheckpoint: when the file is no checkpoint of ours, or is damaged.
        UserError: when it cannot be opened, or was written by a newer version.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path}: the checkpoint cannot be read: {error.strerror}") from None
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            meta = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise DamagedCheckpoint(f"{path}: not a readable checkpoint: {error}") from None
    if "audio_cls" not in meta:
        raise DamagedCheckpoint(f"{path}: a safetensors file, but no checkpoint of audio_cls")
    try:
        state: dict[str, Any] = json.loads(meta["audio_cls"])
        number = int(state.pop("format", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{path}: not a readable checkpoint: {error}") from None
    stored = meta.get(CHECKSUM)
    if stored is not None and stored != _checksum(tensors, meta["audio_cls"]):
        raise DamagedCheckpoint(f"{path}: damaged: its checksum does not match")
    if number > FORMAT:
        raise UserError(f"{path}: written by a newer version of audio_cls")
    if number > 1 and stored is None:
        raise DamagedCheckpoint(f"{path}: damaged: its checksum is missing")
    broken = [] if stored else [k for k, v in tensors.items() if v.is_floating_point() and bool(v.isnan().any())]
    if broken:
        raise DamagedCheckpoint(f"{path}: damaged: {broken[0]} holds values that are no numbers (NaN)")
    return Checkpoint(tensors, state)


def _checksum(tensors: Mapping[str, torch.Tensor], state: str) -> str:
    """Return SHA-256 over the state's text and each tensor's name, type, shape and bytes, in order of the names."""
    digest = hashlib.sha256(state.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_state(file: BinaryIO, name: str) -> dict[str, Any]:
    """Return the state of a checkpoint, from the head of its open file, without its tensors.

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
    """Return the optimiser's state as tensors `"<parameter>.<name>"` and the plain values that are no tensors."""
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
    written under to that of the one it knowingly continues as (a larger budget).
    """

    def __init__(self, folder: Path, previous: tuple[Path, ...] = (), renamed: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.previous = previous
        self.renamed = dict(renamed or {})
        self.refused: list[str] = []  # why `load` passed over a checkpoint

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
        """Return the furthest checkpoint among this folder and the previous ones, with the folder it came from.

        One that is damaged, or whose best weights are, is passed over with a warning, and the reason joins `refused`.
        """
        found: tuple[Checkpoint, Path] | None = None
        self.refused = []
        for folder in (self.folder, *self.previous):
            path = folder / "last.safetensors"
            if not path.exists():
                continue
            try:
                checkpoint = read(path)
                self._check(checkpoint, folder)
            except DamagedCheckpoint as error:
                self.refused.append(str(error))
                continue
            if found is None or checkpoint.state["epoch"] > found[0].state["epoch"]:
                found = checkpoint, folder
        if self.refused:
            onward = f"the run goes on after epoch {found[0].state['epoch'] + 1}" if found else "the run starts anew"
            log.warning("%s; %s", "; ".join(self.refused), onward)
        if found is not None and found[0].state.get("experiment") in self.renamed:
            state = found[0].state
            state["experiment"] = self.renamed[state["experiment"]]
        return found

    def begun_rules(self) -> int | None:
        """Return the version of the training rules of the furthest checkpoint; None if there is none. See `training.rules`."""
        found: dict[str, Any] | None = None
        for folder in (self.folder, *self.previous):
            try:
                with open(folder / "last.safetensors", "rb") as file:
                    state = read_state(file, file.name)
            except (OSError, UserError):
                continue
            if found is None or state.get("epoch", -1) > found.get("epoch", -1):
                found = state
        return None if found is None else int(found.get("rules", 0))

    def _check(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Refuse a checkpoint that contradicts itself (one without a checksum can), or that is nothing without its best weights.

        Raises:
            DamagedCheckpoint: saying what is wrong.
        """
        path, state = folder / "last.safetensors", checkpoint.state
        history = state.get("history")
        if not isinstance(state.get("epoch"), int) or (history is not None and state["epoch"] != len(history) - 1):
            epochs = "no list" if history is None else f"{len(history)}"
            raise DamagedCheckpoint(f"{path}: damaged: epoch {state.get('epoch')!r} with a history of {epochs} epochs")
        best = state.get("best_epoch")
        if history is not None and isinstance(best, int) and best >= 0:
            self.load_best(best, folder)

    def load_best(self, epoch: int, folder: Path | None = None) -> Checkpoint:
        """Return the best weights as of `epoch`, from this folder or an earlier attempt's."""
        for place in (folder or self.folder, self.folder, *self.previous):
            path = self._best(epoch, place)
            if path.exists():
                return read(path)
        raise DamagedCheckpoint(
            f"{self.folder}: no best-{epoch:04d}.safetensors here or in an earlier attempt's folder"
        )

    def adopt(self, epoch: int, folder: Path) -> None:
        """Bring the best weights of an earlier attempt into this folder, so that it stands alone."""
        mine, theirs = self._best(epoch), self._best(epoch, folder)
        if folder != self.folder and theirs.exists() and not mine.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(mine, theirs.read_bytes())

    def best_path(self, epoch: int) -> Path:
        """Return where the best weights of this run lie."""
        return self._best(epoch)

    def size(self) -> int:
        """Return bytes on disk."""
        return sum(os.path.getsize(p) for p in self.folder.glob("*.safetensors"))

    def _best(self, epoch: int, folder: Path | None = None) -> Path:
        return (folder or self.folder) / f"best-{epoch:04d}.safetensors"
