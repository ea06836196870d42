"""Checkpoints are whole or absent, portable, and never pickle."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from audio_cls.checkpoint import Checkpoint, CheckpointStore, read, write
from audio_cls.errors import UserError


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
