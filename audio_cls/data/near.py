"""Clips that are nearly the same: re-encoded, trimmed, gained or resampled copies, and overlapping cuts of one recording.

Two stages. A sketch of each clip finds candidates: the magnitudes of its whole spectrum at a resolution of about 0.1 Hz, relative
to their local mean. The magnitude does not depend on where in the clip a sound begins, nor does its fine structure survive in
another recording of the same kind of sound: two clips of rain, or of the same machine, have other fine structure. The relative
magnitudes are projected on 1,024 random signs (count sketch: Charikar, Chen and Farach-Colton, "Finding frequent items in data
streams", 2002), whose inner products estimate the correlation. Candidates are then aligned by the generalised
cross-correlation of Knapp and Carter (1976), with the same local normalisation: its peak is the similarity, its place the shift.

Landmark and bit fingerprints (Wang 2003; Haitsma and Kalker 2002) answer another question, an excerpt among millions of tracks, and
take peaks or seconds of tonal music to work with; clips of a data set are compared as wholes. `benchmarks/duplicates.py` measures.

What has too little structure to tell (a pure tone, a few clicks) is never called nearly the same.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from audio_cls.core.notices import progress
from audio_cls.core.rng import numpy_rng
from audio_cls.data.audio import to_float
from audio_cls.data.beside import kept_beside
from audio_cls.data.identical import without_silence
from audio_cls.data.near_candidates import MOST, candidates, least_similar, stored
from audio_cls.data.workers import usable_cores

if TYPE_CHECKING:
    from audio_cls.data.corpus import Corpus
    from audio_cls.data.splits import Split

__all__ = [
    "NearPair",
    "Sketch",
    "Sketcher",
    "align",
    "near_notes",
    "near_on_two_sides",
    "near_pairs",
    "near_warning",
]

VERSION = 1  # of the method, see `beside.kept_beside`
SECONDS = 10.0  # of a longer clip its middle is compared
LOW, HIGH = 150.0, 3800.0  # hertz: what codecs and a rate of 8 kHz keep; above 48 kHz in proportion to the rate
SIZE = 1024  # values of a sketch
SMOOTH = 50.0  # hertz over which the local mean is taken
FLOOR = 1e-3  # of the loudest local mean: what lies 60 dB below counts less and less
COMPRESSED = 0.25  # power of the local level by which frequencies count
SIMILAR = 0.4  # peak of the cross-correlation
LEAST_RELIEF = 1e-3  # mean square of the relative magnitudes; of noise 0.27
FREQUENCIES, SPREAD = 64, 64  # outstanding frequencies that are kept of a clip: so many at most, one of so many bins
MOST_CANDIDATES = 6_000  # pairs that are aligned: the most alike by their sketches


@dataclass(frozen=True)
class NearPair:
    """Two clips of a corpus, by number, that are nearly the same.

    similarity: 0 to 1, the peak of their normalised cross-correlation. shift: seconds by which the sound begins later in `a`.
    """

    a: int
    b: int
    similarity: float
    shift: float


class Sketch(NamedTuple):
    """What is kept of a clip to find those nearly the same.

    values: (1024,) float32, whose inner products estimate correlations. evidence: how many independent components the clip is made
    of. frequencies: (k,) int32, the bins that stand out most.
    """

    values: NDArray[np.float32]
    evidence: float
    frequencies: NDArray[np.int32]


class Sketcher:
    """Makes sketches of clips at one sample rate.

    Args:
        sample_rate: hertz.
        longest: samples of the longest clip, of which `SECONDS` are used at most.
    """

    def __init__(self, sample_rate: int, longest: int) -> None:
        self.sample_rate = sample_rate
        self.samples = int(min(longest, SECONDS * sample_rate))
        self.size = fft.next_fast_len(max(self.samples, 2 * SIZE), real=True)
        self.band = _band(sample_rate, self.size)
        self.width = _width(sample_rate, self.size)
        n = self.band.stop - self.band.start
        self.n_frequencies = max(1, min(FREQUENCIES, n // SPREAD))
        self._sign = numpy_rng(0, "sketch").choice(np.asarray([-1, 1], np.float32), (-(-n // SIZE), SIZE))

    def __call__(self, x: NDArray[np.float32]) -> Sketch:
        """Return a clip's sketch.

        Args:
            x: (length,) float32; of more than `SECONDS` the middle is taken.
        """
        nothing = Sketch(np.zeros(SIZE, np.float32), 0.0, np.zeros(self.n_frequencies, np.int32))
        x = _middle(x, self.samples)
        magnitude = np.abs(fft.rfft(x, self.size))[self.band]
        mean = _local_mean(magnitude, self.width)
        top = float(mean.max(initial=0.0))
        if top <= 0.0:
            return nothing
        level = (mean / top) ** COMPRESSED
        fine = (magnitude - mean) / (mean + FLOOR * top) * level
        energy, fourth = float(np.sum(fine**2)), float(np.sum(fine**4))
        if energy <= LEAST_RELIEF * float(np.sum(level**2)):  # a click: nothing but rounding
            return nothing
        padded = np.zeros(self._sign.size, np.float32)
        padded[: len(fine)] = fine
        sketch = (padded.reshape(self._sign.shape) * self._sign).sum(axis=0) / np.float32(np.sqrt(energy))
        evidence = energy**2 / fourth * _sounding(x, self.sample_rate) * self.sample_rate / self.size
        k = self.n_frequencies
        return Sketch(sketch, evidence, np.argpartition(-fine, k - 1)[:k].astype(np.int32))


def align(x: NDArray[np.float32], y: NDArray[np.float32], sample_rate: int) -> tuple[float, float]:
    """Return the similarity of two clips, 0 to 1, and by how many seconds their common sound begins later in `x`."""
    x, y = (_middle(z, int((SECONDS + 2) * sample_rate)) for z in (x, y))
    size = fft.next_fast_len(len(x) + len(y), real=True)
    band, width = _band(sample_rate, size), _width(sample_rate, size)
    whitened = []
    for clip in (x, y):
        spectrum = fft.rfft(clip, size)[band]
        magnitude = np.abs(spectrum)
        mean = _local_mean(magnitude, width)
        top = float(mean.max(initial=0.0))
        if top <= 0.0:
            return 0.0, 0.0
        whitened.append(spectrum / (mean + FLOOR * top) * (mean / top) ** COMPRESSED)
    cross = np.zeros(size // 2 + 1, np.complex64)
    cross[band] = whitened[0] * np.conj(whitened[1])
    norm = np.sqrt(float(np.sum(np.abs(whitened[0]) ** 2)) * float(np.sum(np.abs(whitened[1]) ** 2)))
    correlation = np.abs(fft.irfft(cross, size)) * (size / 2 / norm)
    place = int(correlation.argmax())
    return min(1.0, float(correlation[place])), (place if place <= len(x) else place - size) / sample_rate


def near_pairs(corpus: Corpus) -> tuple[NearPair, ...]:
    """Return the pairs of clips of a corpus that are nearly the same, the most similar first; identical ones are left out, all but
    the first of each set.

    Computed when first asked for (10,000 clips of 5 s: about a minute on two cores) and kept beside the samples. Among more than 50,000
    clips, copies of which little is left can be missed (`near_candidates`).

    Raises:
        DamagedCorpus: naming all clips that are damaged.
    """
    if not corpus.payload.is_waveform:  # what is compared is audio
        return ()
    if corpus.viewed is not None:
        return _in_view(*corpus.viewed)
    found = kept_beside(corpus.directory, "near", corpus.digest, VERSION, lambda: _find(corpus))
    return tuple(NearPair(int(a), int(b), float(s), float(t)) for a, b, s, t in found)


def _in_view(base: Corpus, clips: NDArray[np.int64]) -> tuple[NearPair, ...]:
    """Return the pairs of a corpus that are in a view of it, by the view's numbers; for a clip that is not, an identical one."""
    place = {int(old): new for new, old in enumerate(clips)}
    alike = {found[0]: found for found in base.identical}
    pairs = []
    for pair in near_pairs(base):
        a, b = (next((place[i] for i in alike.get(k, (k,)) if i in place), None) for k in (pair.a, pair.b))
        if a is not None and b is not None:
            pairs.append(replace(pair, a=a, b=b))
    return tuple(pairs)


def near_on_two_sides(corpus: Corpus, split: Split) -> list[tuple[NearPair, str, str]]:
    """Return the pairs of nearly identical clips that stand on two sides of a split, with the sides of both."""
    side_of = split.side_of()
    alike = {found[0]: found for found in corpus.identical}
    out = []
    for pair in near_pairs(corpus):
        sides = [[side_of[i] for i in alike.get(k, (k,)) if i in side_of] for k in (pair.a, pair.b)]
        two = next(((one, other) for one in sides[0] for other in sides[1] if one != other), None)
        if two is not None:
            out.append((pair, *two))
    return out


def near_notes(corpus: Corpus) -> list[str]:
    """Return what to say of a corpus with nearly identical clips that no group holds together; empty for one without."""
    pairs = [p for p in near_pairs(corpus) if corpus.groups[p.a] is None or corpus.groups[p.a] != corpus.groups[p.b]]
    if not pairs:
        return []
    return [
        f"{_pairs(len(pairs))} (re-encoded, trimmed, gained, or cut from one recording), such as {_named(corpus, pairs[0])}. "
        f"audio-cls data describe {corpus.directory.name} lists them"
    ]


def near_warning(corpus: Corpus, split: Split) -> str:
    """Return what to say before training on a split with nearly identical clips on two sides; empty for one without."""
    torn = near_on_two_sides(corpus, split)
    if not torn:
        return ""
    pair, side, other = torn[0]
    return (
        f"{_pairs(len(torn))} on two sides of the split, such as {corpus.ids[pair.a]!r} ({side}) and {corpus.ids[pair.b]!r} "
        f"({other}): figures may be optimistic. audio-cls data describe {corpus.directory.name} lists them; give such clips one group"
    )


def _pairs(n: int) -> str:
    return "1 pair of nearly identical clips" if n == 1 else f"{n} pairs of nearly identical clips"


def _named(corpus: Corpus, pair: NearPair) -> str:
    return f"{corpus.ids[pair.a]!r} and {corpus.ids[pair.b]!r}"


# -- the search -------------------------------------------------------------------------------------------------------


def _find(corpus: Corpus) -> list[list[Any]]:
    copies = {i for found in corpus.identical for i in found[1:]}
    clips = [i for i in range(len(corpus)) if i not in copies]
    sketcher = Sketcher(corpus.sample_rate, int(corpus.lengths.max(initial=1)))

    def clip(i: int) -> NDArray[np.float32]:
        return to_float(without_silence(corpus.samples_of(i), corpus.sample_rate))

    values = np.zeros((len(clips), SIZE), np.int16)
    evidence = np.zeros(len(clips))
    frequencies = np.zeros((len(clips), sketcher.n_frequencies), np.int32)
    with progress("looking for nearly identical clips") as tell, ThreadPoolExecutor(usable_cores()) as pool:
        for k, sketch in enumerate(pool.map(lambda i: sketcher(clip(i)), clips)):
            values[k], evidence[k], frequencies[k] = stored(sketch.values), sketch.evidence, sketch.frequencies
            if k % 100 == 0:
                tell(k, len(clips), "fingerprints")
        found = candidates(values, evidence, frequencies, MOST_CANDIDATES, lambda n, of: tell(n, of, "comparisons"))

        def aligned(candidate: tuple[float, int, int]) -> tuple[float, float]:
            return align(clip(clips[candidate[1]]), clip(clips[candidate[2]]), corpus.sample_rate)

        out = []
        for (_, j, k), (similarity, shift) in zip(found, pool.map(aligned, found), strict=True):
            if similarity >= least_similar(SIMILAR, MOST[1], min(evidence[j], evidence[k])):
                out.append([clips[j], clips[k], round(similarity, 3), round(shift, 3)])
    return sorted(out, key=lambda pair: (-pair[2], pair[:2]))


def _band(sample_rate: int, size: int) -> slice:
    """Return the bins that are compared."""
    scale = max(1.0, sample_rate / 48_000)
    low, high = LOW * scale, min(HIGH * scale, 0.475 * sample_rate)
    return slice(int(low * size / sample_rate), max(int(high * size / sample_rate), 1 + int(low * size / sample_rate)))


def _width(sample_rate: int, size: int) -> int:
    return max(3, int(SMOOTH * max(1.0, sample_rate / 48_000) * size / sample_rate)) | 1


def _middle(x: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    start = max(0, (len(x) - samples) // 2)
    return x[start : start + samples]


def _sounding(x: NDArray[np.float32], sample_rate: int) -> float:
    """Return for how many seconds a clip sounds: its energy's (sum e)^2 / sum e^2 over frames of 10 ms."""
    length = max(1, sample_rate // 100)
    energy = np.add.reduceat(np.square(x, dtype=np.float64), np.arange(0, len(x), length))
    return min(len(x), length * float(energy.sum()) ** 2 / max(float((energy**2).sum()), 1e-300)) / sample_rate


def _local_mean(values: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Return the mean over `width` values around each, (n,), mirrored at the ends."""
    return np.asarray(ndimage.uniform_filter1d(values, width, mode="reflect"), np.float32)
