"""How well nearly identical clips are found: recall by what was done to a copy, false alarms, and the cost.

    OMP_NUM_THREADS=1 python benchmarks/duplicates.py [--esc10 FOLDER] [--clips 60] [--scale 50000] [--only-scale]

About 4 minutes on one core. Copies of clips of ESC-10 (with --esc10) and of generated sounds are altered, decoded again, and
compared with their originals as `data.near` does: found is a pair whose sketches are alike and whose alignment reaches the
threshold. Prints

    recall         the share of copies that are found, by alteration, in a corpus of up to 50,000 clips, where all pairs are compared,
                   and in a larger one; and the least similar of them
    false alarms   pairs that are found among the untouched clips, in one group and beyond; those of ESC-10 are named, to be heard
    cost           of sketches as a share of packing the corpus from its files, and of finding candidates among --scale clips of noise with
                   planted copies: all pairs against shared frequencies, with the recall of the latter

What was chosen: against a sketch with 256 values (its noise alone gives 0.25 to one pair in 10,000), and against taking the sketch's
correlation without the alignment (clips that share hum or a machine's pitch reach 0.3, aligned they stay below 0.1).
"""

from __future__ import annotations

import argparse
import heapq
import io
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from audio_cls.core.workspace import Workspace
from audio_cls.data import near, near_candidates
from audio_cls.data.audio import to_float, to_int16
from audio_cls.data.corpus import Corpus
from audio_cls.data.identical import without_silence
from audio_cls.data.making import generate, prepare

Wave = NDArray[np.float32]


def coded(x: Wave, rate: int, container: str, subtype: str, compression: float) -> Wave:
    """Return a clip encoded and decoded; `compression` from 0 (most bits) to 1."""
    file = io.BytesIO()
    sf.write(file, x, rate, format=container, subtype=subtype, compression_level=compression)
    file.seek(0)
    y, found = sf.read(file, dtype="float32")
    return np.asarray(y if found == rate else soxr.resample(y, found, rate), np.float32)


def through(x: Wave, rate: int, other: int) -> Wave:
    return np.asarray(soxr.resample(soxr.resample(x, rate, other), other, rate), np.float32)


def alterations(rate: int) -> dict[str, Callable[[Wave], Wave]]:
    def cut(x: Wave, start: float, end: float) -> Wave:
        return x[int(start * rate) : len(x) - int(end * rate)]

    def mp3(x: Wave, compression: float) -> Wave:
        return coded(x, rate, "MP3", "MPEG_LAYER_III", compression)

    return {
        "gain -12 dB": lambda x: 0.25 * x,
        "gain -30 dB": lambda x: 0.0316 * x,
        "gain +6 dB, clipped": lambda x: np.clip(2 * x, -1, 1),
        "MP3, middle": lambda x: mp3(x, 0.5),
        "MP3, lowest": lambda x: mp3(x, 0.99),
        "Vorbis, middle": lambda x: coded(x, rate, "OGG", "VORBIS", 0.5),
        "Vorbis, lowest": lambda x: coded(x, rate, "OGG", "VORBIS", 0.99),
        "Opus": lambda x: coded(x, rate, "OGG", "OPUS", 0.5),
        "trimmed 0.3 s at the start": lambda x: cut(x, 0.3, 0),
        "trimmed 1 s at the end": lambda x: cut(x, 0, 1),
        "trimmed 0.5 s at both ends": lambda x: cut(x, 0.5, 0.5),
        "0.5 s of silence before": lambda x: np.concatenate([np.zeros(rate // 2, np.float32), x]),
        "through 8 kHz": lambda x: through(x, rate, 8000),
        "through 22.05 kHz": lambda x: through(x, rate, 22050),
        "MP3 lowest, -10 dB, 1 s off": lambda x: mp3(0.3 * cut(x, 1, 0), 0.99),
    }


def recall(corpus: Corpus, clips: list[int]) -> None:
    rate, sketcher = corpus.sample_rate, near.Sketcher(corpus.sample_rate, int(corpus.lengths.max()))
    originals = [to_float(without_silence(corpus.samples_of(i), rate)) for i in clips]
    sketches = [sketcher(x) for x in originals]
    for name, alter in alterations(rate).items():
        similar, found, shared = [], 0, 0
        for i, x, (sketch, evidence, frequencies) in zip(clips, originals, sketches, strict=True):
            copy = to_float(without_silence(to_int16(alter(corpus.waveform(i)))[0], rate))
            other, its, others = sketcher(copy)
            least = min(evidence, its)
            similar.append(near.align(copy, x, rate)[0])
            alike = float(sketch @ other) >= near_candidates.least_similar(
                near_candidates.CANDIDATE, near_candidates.MOST[0], least
            )
            sure = similar[-1] >= near_candidates.least_similar(near.SIMILAR, near_candidates.MOST[1], least)
            is_found = alike and sure and least >= near_candidates.LEAST_EVIDENCE
            one, two = near_candidates.draws(np.stack([frequencies, others])).T
            found, shared = found + is_found, shared + (is_found and np.count_nonzero(one == two) >= 2)
        print(
            f"  {name:30s} found {found / len(clips):6.1%}, among many clips {shared / len(clips):6.1%}   similarity: least {min(similar):.2f}, median {np.median(similar):.2f}"
        )


def false_alarms(corpus: Corpus, name_them: bool) -> None:
    pairs = near.near_pairs(corpus)
    within = sum(corpus.groups[p.a] is not None and corpus.groups[p.a] == corpus.groups[p.b] for p in pairs)
    print(f"  among {len(corpus)} untouched clips: {len(pairs) - within} pairs beyond groups, {within} within groups")
    for p in pairs if name_them else ():
        print(f"    {corpus.ids[p.a]} and {corpus.ids[p.b]}: similarity {p.similarity}, shift {p.shift} s")


def cost(corpus: Corpus, packing: float) -> None:
    sketcher, began = near.Sketcher(corpus.sample_rate, int(corpus.lengths.max())), time.process_time()
    for i in range(len(corpus)):
        sketcher(to_float(corpus.samples_of(i)))
    spent = time.process_time() - began
    print(
        f"  sketches: {1000 * spent / len(corpus):.1f} ms of one core for each clip; preparing took {packing:.1f} s in all for {len(corpus)}"
    )


def scale(n: int, rate: int = 8000) -> None:
    """Compare the search by shared frequencies with the search of all pairs among n clips of 2 s of noise, with planted copies."""
    rng, began = np.random.default_rng(0), time.process_time()
    sketcher = near.Sketcher(rate, 2 * rate)
    planted = {level: range(200 * k, 200 * (k + 1)) for k, level in enumerate((0.9, 0.8, 0.7, 0.6, 0.5, 0.4))}
    values = np.zeros((n, near.SIZE), np.int16)
    evidence, frequencies = np.zeros(n), np.zeros((n, sketcher.n_frequencies), np.int32)
    level_of = {i: level for level, clips in planted.items() for i in clips}
    clip = np.zeros(2 * rate, np.float32)
    for i in range(n):
        noise = rng.standard_normal(2 * rate, np.float32)
        level = level_of.get(i, 0.0) if i % 2 else 0.0  # a copy of the clip before, with noise
        clip = np.float32(level) * clip + np.float32(np.sqrt(1 - level**2)) * noise
        sketch, evidence[i], frequencies[i] = sketcher(clip)
        values[i] = near_candidates.stored(sketch)
    print(f"{n:,} clips of noise: {time.process_time() - began:.0f} s for their sketches")
    found = {}
    for name, search in (("all pairs", search_all), ("shared frequencies", near_candidates.shared_candidates)):
        before_memory, began = resident(), time.process_time()
        found[name] = {(j, k) for _, j, k in search(values, evidence, frequencies, near.MOST_CANDIDATES)}
        spent, more = time.process_time() - began, resident() - before_memory
        print(
            f"  {name:18} {spent:6.1f} s of processor time, {len(found[name])} candidates, {more:.0f} MiB more memory"
        )
    for level, clips in planted.items():
        pairs = {(i, i + 1) for i in clips[::2]}
        known = pairs & found["all pairs"]
        correlation = np.mean(
            [
                near_candidates.STEP**2 * float(values[i].astype(np.float64) @ values[k].astype(np.float64))
                for i, k in pairs
            ]
        )
        got = len(known & found["shared frequencies"]) / max(1, len(known))
        print(
            f"  similarity {level}: correlation {correlation:.2f}, {len(known)} of {len(pairs)} among all pairs; recall {got:.0%}"
        )


def search_all(
    values: NDArray[np.int16], evidence: NDArray[np.float64], frequencies: NDArray[np.int32], most: int
) -> list[near_candidates.Candidate]:
    return heapq.nlargest(most, near_candidates.all_candidates(values, evidence))


def resident() -> float:
    """Return the largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc10", type=Path, default=None, help="ESC-10 in ESC-50's layout")
    parser.add_argument("--clips", type=int, default=60, help="that are altered, of each corpus")
    parser.add_argument("--scale", type=int, default=50_000, help="clips of the search among many")
    parser.add_argument("--only-scale", action="store_true")
    asked = parser.parse_args()
    scale(asked.scale)
    if asked.only_scale:
        return
    with tempfile.TemporaryDirectory() as folder:
        made = generate(Path(folder) / "made", n_clips=300, seed=1)
        sources = {"generated": made, **({"esc10": asked.esc10} if asked.esc10 else {})}
        for name, source in sources.items():
            began = time.perf_counter()
            corpus = prepare(source, name=name, workspace=Workspace(Path(folder)), progress=False).corpus
            packing = time.perf_counter() - began
            print(f"{name}: {len(corpus)} clips at {corpus.sample_rate} Hz")
            recall(corpus, np.random.default_rng(0).permutation(len(corpus))[: asked.clips].tolist())
            false_alarms(corpus, name == "esc10")
            cost(corpus, packing)


if __name__ == "__main__":
    main()
