"""The generated set: the same for any number of workers, as imbalanced as asked, groups whole, sounds that differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from audio_cls.core.config import ConfigError
from audio_cls.core.errors import UserError
from audio_cls.core.rng import numpy_rng
from audio_cls.data import sources
from audio_cls.data.packing import prepare
from audio_cls.data.sounds import SOUNDS
from audio_cls.data.sources.synthetic import CLASS_NAMES, Synthetic, generate, plan
from audio_cls.data.splits import Folds
from audio_cls.data.synthesis import render

SMALL = Synthetic(n_clips=40, clip_seconds=0.4, sample_rate=8000, n_folds=3)


def files(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_names_and_sounds_agree() -> None:
    assert set(CLASS_NAMES) == set(SOUNDS)
    assert len(SOUNDS) == 10


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize(("n", "rate"), [(16000, 8000), (48000, 16000), (1600, 8000), (22050, 44100)])
def test_every_sound_is_finite_audible_and_varies(name: str, n: int, rate: int) -> None:
    made = [SOUNDS[name](n, rate, numpy_rng(g, "s"), numpy_rng(c, "c")) for g, c in ((0, 0), (0, 0), (0, 1), (1, 0))]
    for x in made:
        assert x.shape == (n,)
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
    assert np.array_equal(made[0], made[1])
    if n / rate >= 1:
        assert all(x.std() > 0 for x in made)
        assert not np.allclose(made[0], made[2])
        assert not np.allclose(made[0], made[3])


def test_workers_do_not_matter(tmp_path: Path) -> None:
    generate(SMALL, tmp_path / "one", workers=1)
    generate(SMALL, tmp_path / "two", workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_interrupted_it_goes_on(tmp_path: Path) -> None:
    generate(SMALL, tmp_path / "whole", workers=1)

    class Stop(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if done >= 16:
            raise Stop

    with pytest.raises(Stop):
        generate(SMALL, tmp_path / "cut", workers=1, progress=stop)
    with pytest.raises(UserError, match="unfinished"):
        sources.read(tmp_path / "cut")
    made = sorted((tmp_path / "cut" / "audio").iterdir())
    made[0].write_bytes(made[0].read_bytes()[:1000])  # and one that was damaged since
    kept = made[1].stat().st_mtime_ns
    seen: list[int] = []
    generate(SMALL, tmp_path / "cut", workers=1, progress=lambda done, total, what: seen.append(done))
    assert seen[0] == 15
    assert made[1].stat().st_mtime_ns == kept
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_other_settings_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    generate(SMALL, tmp_path / "set", workers=1)
    with pytest.raises(UserError, match="seed is 0 there, 1 asked"):
        generate(SMALL.override({"seed": 1}), tmp_path / "set")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        generate(SMALL, tmp_path / "other")


@pytest.mark.parametrize("imbalance", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_plan_is_as_imbalanced_and_grouped_as_asked(imbalance: float, task: str) -> None:
    config = Synthetic(n_clips=2000, imbalance=imbalance, n_groups=300).override({"task": task})
    made = plan(config)
    counts = Counter(labels[0] for labels in made.labels)
    assert sum(counts.values()) == 2000
    assert counts[config.classes[0]] / counts[config.classes[-1]] == pytest.approx(imbalance, rel=0.08)
    assert len(set(made.groups)) == 300
    folds, classes, per_fold = defaultdict(set), defaultdict(set), defaultdict(set)
    for labels, group, fold in zip(made.labels, made.groups, made.folds, strict=True):
        folds[group].add(fold)
        classes[group].add(labels[0])
        per_fold[fold].add(labels[0])
        assert len(set(labels)) == len(labels)
    assert all(len(f) == 1 for f in folds.values())
    assert all(len(c) == 1 for c in classes.values())
    assert sorted(per_fold) == [1, 2, 3, 4, 5]
    if imbalance < 20:
        assert all(len(c) == 10 for c in per_fold.values())
    assert max(Counter(made.folds).values()) < 1.15 * min(Counter(made.folds).values())
    assert max(len(labels) for labels in made.labels) == (3 if task == "multilabel" else 1)


def test_clips_of_a_recording_share_more_than_clips_of_a_class() -> None:
    config = Synthetic(n_clips=60, n_groups=20, classes=("engine",), noise=(20.0, 20.0), overlap=0.0, clip_seconds=1.0)
    made = plan(config)
    spectra = np.stack(
        [np.log(np.abs(np.fft.rfft(render(config, made, i)))[:8000].reshape(80, 100).mean(1)) for i in range(60)]
    )
    spectra -= spectra.mean(axis=1, keepdims=True)
    distance = np.sqrt(((spectra[:, None] - spectra[None]) ** 2).mean(-1))
    group = np.asarray(made.groups)
    same = (group[:, None] == group[None]) & ~np.eye(60, dtype=bool)
    assert distance[same].mean() < 0.6 * distance[group[:, None] != group[None]].mean()


def test_noise_is_what_was_asked() -> None:
    def at(decibels: float) -> np.ndarray:
        config = Synthetic(n_clips=1, classes=("alarm",), noise=(decibels, decibels), overlap=0.0, clip_seconds=1.0)
        x = render(config, plan(config), 0)
        return x / x.std()

    clean, noisy = at(200.0), at(0.0)
    alpha = float((clean * noisy).mean())  # at 0 dB signal and noise have equal power
    assert alpha**2 == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("file_format", ["wav", "flac"])
def test_generated_read_prepared(tmp_path: Path, task: str, file_format: str) -> None:
    config = SMALL.override({"task": task, "file_format": file_format})
    manifest = sources.read(generate(config, tmp_path / "set", workers=1))
    assert (manifest.task, len(manifest), manifest.classes) == (task, 40, tuple(sorted(CLASS_NAMES)))
    info = sf.info(manifest.clips[0].path)
    assert (info.frames, info.samplerate, info.subtype) == (3200, 8000, "PCM_16")
    report = prepare(manifest, tmp_path / "corpus", workers=1, sample_rate=8000, on_bad="refuse")
    assert report.turned_down == 0
    Folds(test_fold=1).assign(report.corpus)
    made = plan(config)
    assert [set(c.labels) for c in report.corpus.clips] == [set(labels) for labels in made.labels]
    assert np.abs(report.corpus.waveform(7) - render(config, made, 7)).max() <= 1 / 32768


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["engine", "brk"]}, "'brk' is no class of the generator.*Did you mean 'bark'"),
        ({"classes": ["rain", "rain"]}, "different names"),
        ({"n_clips": 5}, "less than the 10 classes"),
        ({"n_groups": 3}, "must lie between"),
        ({"noise": [10, 0]}, "lowest, highest"),
        ({"imbalanc": 3}, "Did you mean 'imbalance'"),
        ({"task": "both"}, "task"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Synthetic().override(changes)
