"""Checkpoints are whole or absent, portable, and never pickle."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from audio_cls.core.errors import UserError
from audio_cls.training.checkpoint import Checkpoint, CheckpointStore, read, write


def checkpoint(epoch: int, best: int = 0) -> Checkpoint:
    return Checkpoint({"model.w": torch.full((1000,), float(epoch))}, {"epoch": epoch, "best_epoch": best})


def test_round_trip_keeps_values_types_and_state(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "b": torch.tensor(7, dtype=torch.int64),
        "c": torch.randn(3).to(torch.bfloat16),
    }
    write(tmp_path / "x.safetensors", tensors, {"epoch": 3, "history": [{"v": 0.1}]})
    found = read(tmp_path / "x.safetensors")
    assert found.state == {"epoch": 3, "history": [{"v": 0.1}]}
    for name, value in tensors.items():
        assert torch.equal(found.tensors[name], value)
        assert found.tensors[name].dtype == value.dtype


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 a zip, as torch.save writes", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"]
)
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.safetensors"):
        read(path)


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read(tmp_path / "x.safetensors")


def test_store_keeps_last_and_the_best_it_names(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    assert store.load() is None
    store.save(checkpoint(0), checkpoint(0))
    store.save(checkpoint(1), None)
    store.save(checkpoint(2, best=2), checkpoint(2))
    found = store.load()
    assert found is not None
    assert found[0].state["epoch"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best-0002.safetensors", "last.safetensors"]
    with pytest.raises(UserError, match="best-0001"):
        store.load_best(1)


def test_a_successor_reads_its_predecessor_and_writes_its_own(tmp_path: Path) -> None:
    old = CheckpointStore(tmp_path / "7")
    old.save(checkpoint(3, best=3), checkpoint(3))
    before = {p.name: p.read_bytes() for p in (tmp_path / "7").iterdir()}
    new = CheckpointStore(tmp_path / "9", previous=(tmp_path / "7", tmp_path / "5"))
    found = new.load()
    assert found is not None
    assert found[1] == tmp_path / "7"
    new.adopt(3, found[1])
    new.save(checkpoint(4, best=3), None)
    assert new.load_best(3).state["epoch"] == 3
    assert {p.name: p.read_bytes() for p in (tmp_path / "7").iterdir()} == before
    later = new.load()
    assert later is not None
    assert later[0].state["epoch"] == 4


def _write_for_ever(folder: str) -> None:
    store = CheckpointStore(Path(folder))
    epoch = 0
    while True:
        c = Checkpoint({"model.w": torch.full((200_000,), float(epoch))}, {"epoch": epoch, "best_epoch": epoch})
        store.save(c, c)
        epoch += 1


def test_killed_while_writing_a_whole_checkpoint_is_there(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_write_for_ever, args=(str(tmp_path),))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "last.safetensors").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.05)
    finally:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    found = CheckpointStore(tmp_path).load()
    assert found is not None
    last, _ = found
    assert torch.equal(last.tensors["model.w"], torch.full((200_000,), float(last.state["epoch"])))
    best = CheckpointStore(tmp_path).load_best(last.state["best_epoch"])
    assert best.state["epoch"] == last.state["epoch"]


# -- damage -------------------------------------------------------------------------------------------------------------


def trained(epoch: int, best: int = 0, value: float = 1.0) -> Checkpoint:
    history = [{"val/macro_f1": 0.1 * e} for e in range(epoch + 1)]
    state = {"epoch": epoch, "best_epoch": best, "history": history, "experiment": "x"}
    return Checkpoint({"model.w": torch.full((8,), value)}, state)


def without_checksum(path: Path, checkpoint: Checkpoint) -> None:
    """As version 1 of the format wrote it."""
    path.write_bytes(save(checkpoint.tensors, metadata={"audio_cls": json.dumps({"format": 1, **checkpoint.state})}))


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write(path, {"w": torch.arange(3.0)}, {"epoch": 1})
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(UserError, match=r"x\.safetensors: "):
                read(path)
    path.write_bytes(whole)
    assert torch.equal(read(path).tensors["w"], torch.arange(3.0))


def test_a_checkpoint_without_a_checksum_still_opens(tmp_path: Path) -> None:
    without_checksum(tmp_path / "last.safetensors", trained(2))
    write(tmp_path / "best-0000.safetensors", {"w": torch.zeros(2)}, {"epoch": 0})
    store = CheckpointStore(tmp_path)
    found = store.load()
    assert found is not None
    assert (found[0].state["epoch"], store.refused) == (2, [])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def changed_epoch(path: Path) -> None:
    state = read(path).state | {"epoch": 1}
    without_checksum(path, Checkpoint(read(path).tensors, state))


def nan_weights(path: Path) -> None:
    without_checksum(path, Checkpoint({"model.w": torch.full((8,), float("nan"))}, read(path).state))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def best_gone(path: Path) -> None:
    next(path.parent.glob("best-*")).unlink()


def best_damaged(path: Path) -> None:
    flip(next(path.parent.glob("best-*")))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip, "last.safetensors: damaged: its checksum does not match"),
        (changed_epoch, "last.safetensors: damaged: epoch 1 with a history of 4 epochs"),
        (nan_weights, "last.safetensors: damaged: model.w holds values that are no numbers"),
        (cut_short, "last.safetensors: not a readable checkpoint"),
        (best_gone, "no best-0003.safetensors"),
        (best_damaged, "best-0003.safetensors: damaged: its checksum does not match"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_its_reason(
    damage: Any, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    earlier = CheckpointStore(tmp_path / "earlier")
    earlier.save(trained(1, best=1), trained(1))
    alone = CheckpointStore(tmp_path / "later")
    alone.save(trained(3, best=3), trained(3))
    damage(tmp_path / "later" / "last.safetensors")
    assert alone.load() is None
    assert reason in alone.refused[0]
    assert "the run starts anew" in caplog.text
    found = CheckpointStore(tmp_path / "later", (tmp_path / "earlier",)).load()
    assert found is not None
    assert (found[0].state["epoch"], found[1]) == (1, tmp_path / "earlier")
    assert "the run goes on after epoch 2" in caplog.text


def test_what_cannot_be_opened_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that began anew would write over a checkpoint that is whole."""
    store = CheckpointStore(tmp_path)
    store.save(trained(1), trained(0))

    def refuse(self: Path, *words: Any, **more: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"cannot be read: Permission denied"):
        store.load()
    monkeypatch.undo()
    write(tmp_path / "last.safetensors", trained(1).tensors, {**trained(1).state, "format": 99})
    with pytest.raises(UserError, match="newer version"):
        store.load()
