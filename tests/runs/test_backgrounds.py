"""Background noise from another corpus: mixed in at the asked level, looked for before training, recorded, never exchanged half-way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_cls.components.augment import Background
from audio_cls.core.config import ConfigError
from audio_cls.core.errors import UserError
from audio_cls.data import sources
from audio_cls.data.packing import prepare
from audio_cls.data.sources.synthetic import Synthetic, generate
from audio_cls.runs.preparation import Runtime, check_fits, prepare_run, run_facts
from audio_cls.training.checkpoint import CheckpointStore, read
from audio_cls.training.loop import fit
from tests.training.test_training import experiment, resolved, runtime

__all__ = ["runtime"]  # the fixture


class Clips:
    """Recordings for one operation."""

    digest = "0" * 64

    def __init__(self, *clips: np.ndarray) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def samples_of(self, i: int) -> np.ndarray:
        return self.clips[i]


def mixed(clips: Clips, x: torch.Tensor, **fields: Any) -> torch.Tensor:
    op = Background.parse({"corpus": "x", "p": 1.0, **fields}).build(8000, 128)
    op.recordings = clips
    return op(x, torch.Generator().manual_seed(0))


def test_noise_has_the_asked_ratio_and_is_a_part_of_a_clip() -> None:
    ramp = np.arange(1, 4001, dtype=np.int16)
    x = torch.randn(40, 1000) * torch.linspace(0.01, 1, 40)[:, None]
    before = x.clone()
    added = mixed(Clips(ramp, -ramp), x, snr_db=(5.0, 5.0)) - x
    assert torch.equal(x, before)
    ratio = 10 * torch.log10(x.square().mean(1) / added.square().mean(1))
    torch.testing.assert_close(ratio, torch.full((40,), 5.0), atol=0.01, rtol=0)
    step = added.diff(dim=1).mean(1)
    starts = (added[:, 0] / step).round()
    assert {bool(s > 0) for s in step} == {True, False}, "both clips are drawn"
    assert len(starts.unique()) > 20, "at random places"
    torch.testing.assert_close(added, step[:, None] * (starts[:, None] + torch.arange(1000)), atol=1e-3, rtol=1e-2)


def test_short_recordings_are_repeated_and_silence_adds_nothing() -> None:
    x = torch.randn(6, 500)
    added = mixed(Clips(np.array([100, -300, 200], np.int16)), x) - x
    torch.testing.assert_close(added[:, :-3], added[:, 3:])
    assert (added.abs().amax(1) > 0.1).all()
    assert torch.equal(mixed(Clips(np.zeros(900, np.int16)), x), x)
    silent = torch.zeros(2, 500)
    assert torch.equal(mixed(Clips(np.ones(900, np.int16)), silent), silent)
    assert torch.equal(mixed(Clips(np.ones(900, np.int16)), x, p=0.0), x)


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two corpora of ten clips at 8 kHz, and one at 4 kHz."""
    root = tmp_path_factory.mktemp("noises")
    for number, rate in enumerate([8000, 8000, 4000]):
        generate(
            Synthetic(n_clips=10, clip_seconds=0.7, sample_rate=rate, n_folds=2, seed=number), root / f"source{number}"
        )
        prepare(sources.read(root / f"source{number}"), root / f"noise{number}", sample_rate=rate, workers=1)
    return [root / f"noise{number}" for number in range(3)]


def test_a_run_with_background_noise_resumes_and_records_it(
    runtime: Runtime, noises: list[Path], tmp_path: Path
) -> None:
    e = resolved(experiment(augment={"background": {"corpus": str(noises[0]), "p": 0.7}}, training__epochs=2), runtime)
    check_fits(e, runtime.corpus(e.data), runtime.workspace)
    prepared = prepare_run(e, runtime)
    assert run_facts(prepared, torch.device("cpu"))["background.digest"] == prepared.chain.background_digest
    fit(e, prepared.chain, prepared.batches, CheckpointStore(tmp_path / "whole"))
    for epochs in (1, 2):
        prepared = prepare_run(e, runtime)
        fit(e, prepared.chain, prepared.batches, CheckpointStore(tmp_path / "parts"), epochs=epochs)
    plain = resolved(experiment(augment={}, training__epochs=2), runtime)
    prepared = prepare_run(plain, runtime)
    fit(plain, prepared.chain, prepared.batches, CheckpointStore(tmp_path / "plain"))
    whole, parts, without = (read(tmp_path / name / "last.safetensors").tensors for name in ("whole", "parts", "plain"))
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    assert any(not torch.equal(tensor, without[name]) for name, tensor in whole.items())


def test_another_corpus_of_that_name_does_not_go_on_with_a_run(
    runtime: Runtime, noises: list[Path], tmp_path: Path
) -> None:
    link = tmp_path / "noise"
    link.symlink_to(noises[0])
    e = resolved(experiment(augment={"background": {"corpus": str(link)}}, training__epochs=2), runtime)
    prepared = prepare_run(e, runtime)
    fit(e, prepared.chain, prepared.batches, CheckpointStore(tmp_path / "run"), epochs=1)
    link.unlink()
    link.symlink_to(noises[1])
    runtime.corpora.clear()
    prepared = prepare_run(e, runtime)
    with pytest.raises(ConfigError, match="another corpus than this run was trained with until epoch 1"):
        fit(e, prepared.chain, prepared.batches, CheckpointStore(tmp_path / "run"))


def test_a_corpus_that_cannot_be_the_noise_is_refused(runtime: Runtime, noises: list[Path], tmp_path: Path) -> None:
    for name, words in {
        "": "augment.background.corpus is missing",
        "nois": r"augment.background.corpus: no corpus 'nois'",
        "tones": r"30 of its 30 clips are also in the training corpus",
        str(
            noises[2]
        ): r"packed at 4000 Hz, the training corpus 'clips' at 8000 Hz: prepare it again with --sample-rate 8000",
    }.items():
        e = resolved(experiment(augment={"background": {"corpus": name}}), runtime)
        with pytest.raises(UserError, match=words):
            prepare_run(e, runtime)
        with pytest.raises(UserError, match=words):
            check_fits(e, runtime.corpus(e.data), runtime.workspace)
        assert prepare_run(e, runtime, for_training=False).chain.background_digest is None
