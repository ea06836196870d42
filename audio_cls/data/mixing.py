"""Multi-label mixtures of the clips of a corpus: long-tailed labels, random levels, overlaps.

Clips are mixed within a pool: a part of a published fold or split with whole groups. Mixtures of one pool are one group, so that no
recording is heard on two sides of a split that keeps groups whole.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from audio_cls.core.config import Component
from audio_cls.core.errors import UserError
from audio_cls.core.rng import numpy_rng
from audio_cls.core.workspace import atomic_write
from audio_cls.data.audio import to_int16
from audio_cls.data.corpus import Corpus
from audio_cls.data.folders import begin_folder
from audio_cls.data.stratification import stratify

__all__ = ["Mixtures", "Pool", "mix", "pools_of"]

_SETTINGS = "mixtures.json"
_PEAK = 0.98


class Mixtures(Component):
    """The settings of the mixtures. Equal settings and equal corpora give the same files."""

    clips: Annotated[int, Field(ge=1)] = 1000
    """Mixtures in all."""
    labels: Annotated[float, Field(ge=1)] = 2.0
    """Mean number of clips mixed: one and a Poisson number of others, as many as there are classes at most."""
    tail: Annotated[float, Field(ge=0, le=3)] = 0.7
    """The class of rank r, the corpus's order, is drawn with a weight of r ** -tail; 0 draws all alike."""
    seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    """Length of a mixture."""
    quietest: Annotated[float, Field(le=0, ge=-60)] = -12.0
    """Lowest level of a clip below the loudest, in dB; levels are uniform down to it."""
    pools: Annotated[int, Field(ge=1)] = 4
    """Pools of each fold or split; fewer where it has too few groups."""
    seed: int = Field(default=0, ge=0)
    """Of everything."""


@dataclass(frozen=True)
class Pool:
    """Clips that are mixed with each other: their numbers in the corpus, and the fold and split that they have in common."""

    name: str
    clips: NDArray[np.int64]
    fold: int | None
    split: str | None


def pools_of(corpus: Corpus, config: Mixtures) -> list[Pool]:
    """Divide a corpus into pools: by published fold and split, then by whole groups, stratified by class."""
    keys = list(zip(corpus.folds.tolist(), corpus.splits, strict=True))
    pools = []
    for fold, split in sorted(set(keys), key=str):
        clips = np.asarray([i for i, key in enumerate(keys) if key == (fold, split)], dtype=np.int64)
        groups = [corpus.groups[int(i)] for i in clips]
        units = len(set(groups) - {None}) + groups.count(None)
        n = max(1, min(config.pools, units // 2))
        part = stratify(corpus.targets[clips], groups, (1 / n,) * n, config.seed)
        where = "-".join([*([f"fold{fold}"] if fold >= 0 else []), *([split] if split else [])]) or "all"
        for k in range(n):
            if len(mine := clips[part == k]):
                pools.append(Pool(f"{where}-pool{k + 1}", mine, fold if fold >= 0 else None, split))
    return pools


def mix(corpus: Corpus, folder: Path, config: Mixtures, progress: Callable[[int, int, str], None]) -> Path:
    """Write mixtures as WAV files and a table, `folder/meta.csv`. Interrupted, the same call goes on.

    Raises:
        UserError: for a corpus of no waveforms, or a folder that holds something else.
    """
    if not corpus.payload.is_waveform:
        raise UserError(f"{corpus.name!r} holds {corpus.payload.describe()}: mixtures are made of waveforms")
    settings = f"{corpus.digest}\n{config.to_json()}\n"
    begin_folder(folder, _SETTINGS, settings, "mixtures")
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    pools = pools_of(corpus, config)
    share = np.cumsum([len(pool.clips) for pool in pools]) / len(corpus)
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["path", "labels", "fold", "split", "group"])
    for i in range(config.clips):
        pool = pools[int(np.searchsorted(share, (i + 0.5) / config.clips))]
        chosen = _choose(corpus, pool, config, i)
        path = folder / "audio" / f"mix{i:06d}.wav"
        if not path.exists():
            _write(path, _mixture(corpus, chosen, config, i), corpus.sample_rate)
        labels = sorted({k for clip in chosen for k in corpus.label_lists[clip]})
        names = ";".join(corpus.classes[k] for k in labels)
        table.writerow(
            [f"audio/{path.name}", names, "" if pool.fold is None else pool.fold, pool.split or "", pool.name]
        )
        progress(i + 1, config.clips, path.name)
    atomic_write(folder / "meta.csv", out.getvalue())
    return folder / "meta.csv"


def _choose(corpus: Corpus, pool: Pool, config: Mixtures, i: int) -> list[int]:
    """Return the clips of mixture `i`: classes by their weights, each once, and a clip of the pool for each."""
    rng = numpy_rng(config.seed, "mix", i)
    held = corpus.targets[pool.clips] > 0  # (clips, classes)
    weight = np.where(held.any(axis=0), np.arange(1.0, held.shape[1] + 1) ** -config.tail, 0.0)
    n = min(1 + int(rng.poisson(config.labels - 1)), int((weight > 0).sum()))
    classes = rng.choice(len(weight), size=max(1, n), replace=False, p=weight / weight.sum())
    return [int(rng.choice(pool.clips[held[:, k]])) for k in classes]


def _mixture(corpus: Corpus, chosen: list[int], config: Mixtures, i: int) -> NDArray[np.float32]:
    """Return (samples,) float32: each clip at unit power, at a level and a place of its own, the whole below full scale."""
    rng = numpy_rng(config.seed, "mixture", i)
    out = np.zeros(round(config.seconds * corpus.sample_rate), np.float32)
    for k, clip in enumerate(chosen):
        x = corpus.waveform(clip)
        room = len(out) - len(x)
        if room < 0:
            first = int(rng.integers(0, -room + 1))
            x, start = x[first : first + len(out)], 0
        else:
            start = int(rng.integers(0, room + 1))
        level = 0.0 if k == 0 else float(rng.uniform(config.quietest, 0))
        power = float(np.sqrt(np.mean(x.astype(np.float64) ** 2))) or 1.0
        out[start : start + len(x)] += x * np.float32(10 ** (level / 20) / power)
    loudest = float(np.abs(out).max()) or 1.0
    return out * np.float32(_PEAK * 10 ** (rng.uniform(-12, 0) / 20) / loudest)


def _write(path: Path, x: NDArray[np.float32], sample_rate: int) -> None:
    import soundfile

    partial = path.with_name(path.name + ".partial")
    soundfile.write(partial, to_int16(x)[0], sample_rate, subtype="PCM_16", format="WAV")
    os.replace(partial, path)
