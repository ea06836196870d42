"""Pairs of clips whose sketches are alike: what `data.near` aligns.

Up to `EXHAUSTIVE` clips, all pairs are compared. That costs a time that grows with the square of the number of clips. The correlations
that count begin at 0.15, where no exact index of vectors with 1,024 values beats comparing all of them: bounds by the triangle
inequality or by bands of bits exclude next to nothing so far from 1.

Among more clips, only those are compared that share outstanding frequencies. MinHash (Broder, "On the resemblance and containment of
documents", 1997) with the linear permutations of Bohman, Cooper and Frieze (2000) draws `DRAWS` of a clip's frequencies; two clips
with two draws in common are compared. That finds 0.92 of the pairs that share a tenth of their frequencies (Jaccard) and 0.99 of
those that share 0.15, and copies share more unless half of the sound is gone. `benchmarks/duplicates.py` measures: of the
candidates among 100,000 clips of noise, it finds 0.99 at a correlation of 0.6, 0.9 at 0.46, 0.65 at 0.34 and 0.5 at 0.23, in 55 s of a core
instead of 109 s. Altered copies of clips of ESC-10 (coded, gained, resampled, trimmed by a second of five) are all found that comparing
all pairs finds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.rng import numpy_rng
from audio_cls.data.workers import usable_cores

__all__ = [
    "CANDIDATE",
    "LEAST_EVIDENCE",
    "MOST",
    "Candidate",
    "all_candidates",
    "candidates",
    "draws",
    "least_similar",
    "shared_candidates",
]

Candidate = tuple[float, int, int]  # correlation of two sketches, and the two clips by number, the lower one first

CANDIDATE = 0.15  # correlation of sketches
DEVIATIONS = 5.0  # by which a similarity lies above what clips without anything in common give by chance
LEAST_EVIDENCE = 10.0  # independent components of a clip; a pure tone has 1 or 2
MOST = 0.7, 0.9  # that are asked of the sketches and of the alignment of clips with little evidence
EXHAUSTIVE = 50_000  # clips up to which all pairs are compared: half a minute of one core
DRAWS = 40  # frequencies drawn of each clip; clips with two draws in common are compared
BUCKET = 32  # of more clips with the same draw, each is compared with this many that follow it
STEP = 2.0**-14  # of a value that is kept
SLACK = 0.1  # by which the signs of two sketches may underestimate their correlation: 2 standard deviations
_TILE = 2048  # clips compared at once with as many others
_PAIRS, _PRODUCTS = 4096, 128  # pairs compared at once, by signs and by values


def least_similar(least: float, most: float, evidence: float) -> float:
    """Return what two clips must reach to be more alike than chance makes them: more where there is little evidence."""
    return max(least, min(most, DEVIATIONS / float(np.sqrt(max(1.0, evidence)))))


def candidates(
    sketches: NDArray[Any],
    evidence: NDArray[np.float64],
    frequencies: NDArray[np.int32],
    most: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Candidate]:
    """Return the pairs of clips whose sketches are alike, the most alike first, `most` at most.

    Args:
        sketches: (n, size), numbers, or as `stored` gives them. evidence: (n,), as `Sketcher` gives it.
        frequencies: (n, k) bins of the spectrum that stand out, of each clip.
        progress: called with the number of steps done and of all steps.
    """
    if np.count_nonzero(evidence >= LEAST_EVIDENCE) <= EXHAUSTIVE:
        return heapq.nlargest(most, all_candidates(sketches, evidence))
    return shared_candidates(sketches, evidence, frequencies, most, progress)


def all_candidates(sketches: NDArray[Any], evidence: NDArray[np.float64]) -> Iterator[Candidate]:
    """Yield the pairs whose sketches are alike, comparing all: a tile of `_TILE` by `_TILE` pairs at a time.

    Args:
        sketches: (n, size), numbers, or as `stored` gives them. evidence: (n,).
    """
    enough, least = _thresholds(evidence)
    for top in range(0, len(enough), _TILE):
        mine = _values(sketches[enough[top : top + _TILE]])
        for left in range(top, len(enough), _TILE):
            correlation = mine @ _values(sketches[enough[left : left + _TILE]]).T
            rows, columns = np.divmod(np.flatnonzero(correlation >= CANDIDATE), correlation.shape[1])
            limit = np.maximum(least[top + rows], least[left + columns])
            chosen = (correlation[rows, columns] >= limit) & (top + rows < left + columns)
            for row, column in zip(rows[chosen].tolist(), columns[chosen].tolist(), strict=True):
                yield float(correlation[row, column]), int(enough[top + row]), int(enough[left + column])


def shared_candidates(
    sketches: NDArray[Any],
    evidence: NDArray[np.float64],
    frequencies: NDArray[np.int32],
    most: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Candidate]:
    """Return the pairs whose sketches are alike among those with two draws of `draws` in common: `candidates`."""
    enough, least = _thresholds(evidence)
    drawn = draws(frequencies[enough])
    parts = (sketches[enough[start : start + _TILE]] > 0 for start in range(0, len(enough), _TILE))
    signs = np.concatenate([np.packbits(part, axis=1).view(np.uint64) for part in parts])

    def compare(pair: tuple[int, int]) -> dict[tuple[int, int], float]:
        first, second = _same(drawn[pair[0]].astype(np.uint64) << np.uint64(32) | drawn[pair[1]])
        out: dict[tuple[int, int], float] = {}
        for start in range(0, len(first), _PAIRS):
            a, b = first[start : start + _PAIRS], second[start : start + _PAIRS]
            limit = np.maximum(least[a], least[b])
            apart = np.bitwise_count(signs[a] ^ signs[b]).sum(axis=1, dtype=np.int64)
            likely = np.flatnonzero(np.cos(apart * (np.pi / (64 * signs.shape[1]))) >= limit - SLACK)
            correlation = _correlations(sketches, enough[a[likely]], enough[b[likely]])
            for i, value in zip(likely.tolist(), correlation.tolist(), strict=True):
                if value >= limit[i]:
                    out[int(enough[a[i]]), int(enough[b[i]])] = value
        return out

    found: dict[tuple[int, int], float] = {}
    with ThreadPoolExecutor(usable_cores()) as pool:
        pairs = list(combinations(range(DRAWS), 2))
        for done, more in enumerate(pool.map(compare, pairs)):
            found |= more
            if len(found) > 2 * most:
                found = {(j, k): value for value, j, k in _most_alike(found, most)}
            progress(done, len(pairs))
    return _most_alike(found, most)


def stored(sketch: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return a sketch as it is kept, 2 bytes a value: rounding is far below what a sketch errs by."""
    return np.asarray(np.clip(np.rint(sketch / STEP), -32768, 32767), np.int16)


def _values(sketches: NDArray[Any]) -> NDArray[np.float32]:
    """Return sketches as numbers, whether they are kept as numbers or as `stored` gives them."""
    out: NDArray[np.float32] = sketches.astype(np.float32)
    return out * np.float32(STEP) if sketches.dtype == np.int16 else out


def _correlations(sketches: NDArray[Any], a: NDArray[np.intp], b: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the inner products of the sketches of clips `a` with those of `b`, (n,), a few at a time so that they stay in the cache."""
    out = np.zeros(len(a), np.float32)
    for start in range(0, len(a), _PRODUCTS):
        part = slice(start, start + _PRODUCTS)
        out[part] = np.einsum("ij,ij->i", sketches[a[part]], sketches[b[part]], dtype=np.float32, casting="unsafe")
    return out * np.float32(STEP**2) if sketches.dtype == np.int16 else out


def _most_alike(found: dict[tuple[int, int], float], most: int) -> list[Candidate]:
    return heapq.nlargest(most, ((value, j, k) for (j, k), value in found.items()))


def _thresholds(evidence: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the clips with enough evidence, and the least correlation that is asked of each."""
    enough = np.flatnonzero(evidence >= LEAST_EVIDENCE)
    return enough, np.asarray([least_similar(CANDIDATE, MOST[0], found) for found in evidence[enough]], np.float32)


def draws(frequencies: NDArray[np.int32]) -> NDArray[np.uint32]:
    """Return what `DRAWS` permutations draw of each clip's frequencies, (DRAWS, n): the least under the permutation.

    Args:
        frequencies: (n, k).
    """
    columns = np.ascontiguousarray(frequencies.T).astype(np.uint32)
    permutations = numpy_rng(0, "near candidates").integers(0, 2**32, (DRAWS, 2), dtype=np.uint32)
    return np.stack([(columns * (factor | np.uint32(1)) + offset).min(axis=0) for factor, offset in permutations])


def _same(key: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs of clips, the lower one first, whose keys are the same; of many with one key, those close in number.

    Args:
        key: (n,).
    """
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    pairs = []
    for step in range(1, min(BUCKET, len(order) - 1) + 1):
        same = np.flatnonzero(ordered[step:] == ordered[:-step])
        if len(same) == 0:
            break
        pairs.append((order[same], order[same + step]))
    if not pairs:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return first, second
