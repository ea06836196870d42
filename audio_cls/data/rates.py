"""The rate that a corpus is packed at, chosen from the rates of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from audio_cls.core.errors import UserError
from audio_cls.data.audio import MAX_RATE, MIN_RATE, BadAudio, source_rate
from audio_cls.data.corpus import Corpus
from audio_cls.data.index import recorded_rate
from audio_cls.data.manifest import Manifest
from audio_cls.data.workers import WorkerDied, ordered_map

__all__ = ["HIGHEST_RATE", "RateChoice", "SampleRate", "advice", "check_rate", "choose_rate", "commonest", "rates_job"]

SampleRate = int | Literal["auto"]
HIGHEST_RATE = 16000  # hertz: what "auto" takes at most; speech and most sounds keep what tells them apart, at a third of CD's cost
_FILES_PER_JOB = 200


@dataclass(frozen=True)
class RateChoice:
    """The rate of a corpus in hertz, and in a few words where it comes from."""

    sample_rate: int
    reason: str


def check_rate(asked: SampleRate) -> None:
    """Raise a `UserError` for a rate that no corpus can have."""
    if asked != "auto" and not (isinstance(asked, int) and MIN_RATE <= asked <= MAX_RATE):
        raise UserError(
            f"sample_rate={asked} (--sample-rate): {MIN_RATE} to {MAX_RATE} hertz, or auto for the rate of most files"
        )


def choose_rate(
    manifest: Manifest,
    asked: SampleRate,
    directory: Path,
    workers: int,
    tell: Callable[[int, int, str], None],
) -> RateChoice:
    """Return the rate to pack a manifest at.

    "auto" is the rate of most files, 16 kHz at most, so that no more than a minority is resampled upwards; all headers are
    read for it (about half a millisecond each). Where `directory` holds the corpus already, or a preparation of it that was
    interrupted, its rate is kept.
    """
    if asked != "auto":
        return RateChoice(asked, "as asked")
    kept = recorded_rate(directory)
    if kept is not None and MIN_RATE <= kept <= MAX_RATE:
        return RateChoice(kept, "as it was packed before")
    counts = (_count_rates if manifest.codec is None else _count_decoded_rates)(manifest, workers, tell)
    if not counts:
        return RateChoice(HIGHEST_RATE, "no file says its own")
    rate = commonest(counts)
    reason = f"the rate of {counts[rate]:,} of {sum(counts.values()):,} clips"
    if rate > HIGHEST_RATE:
        return RateChoice(
            HIGHEST_RATE, f"most clips are recorded at {rate} Hz; more than {HIGHEST_RATE} only when asked"
        )
    return RateChoice(rate, reason)


def advice(corpus: Corpus) -> str | None:
    """Return what to say where most clips of a corpus were resampled upwards, or far down, with the better rate; None if
    that is not so.
    """
    counts = Counter(corpus.source_rates.tolist())
    usual = min(commonest(counts), HIGHEST_RATE)
    if corpus.sample_rate < usual:
        return (
            f"most clips are recorded at {commonest(counts)} Hz: at {corpus.sample_rate} Hz all above {corpus.sample_rate / 2:g} Hz is "
            f"thrown away. Better: --sample-rate {usual}"
        )
    below = sum(n for rate, n in counts.items() if rate < corpus.sample_rate)
    if 2 * below <= len(corpus):
        return None
    better = commonest(Counter({rate: n for rate, n in counts.items() if rate < corpus.sample_rate}))
    return (
        f"{below:,} of {len(corpus):,} clips are recorded below {corpus.sample_rate} Hz, most at {better} Hz: "
        f"resampled upwards they cost more and hold no more. Better: --sample-rate {better}"
    )


def commonest(counts: Counter[int]) -> int:
    """Return the most frequent rate; of equally frequent ones the lowest, at which no clip is resampled upwards
    needlessly.
    """
    return min(counts, key=lambda rate: (-counts[rate], rate))


def rates_job(job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Read the sample rates in the headers of some files, in a worker; None for a file that cannot be read."""
    rates: list[int | None] = []
    for path in job["paths"]:
        try:
            rates.append(source_rate(Path(path)))
        except BadAudio:
            rates.append(None)
    return {"rates": rates}, b""


def _count_rates(manifest: Manifest, workers: int, tell: Callable[[int, int, str], None]) -> Counter[int]:
    """Return the number of clips from files of each rate, by the headers of all files."""
    clips = Counter(str(clip.path) for clip in manifest.clips)
    paths = list(clips)
    parts = [paths[k : k + _FILES_PER_JOB] for k in range(0, len(paths), _FILES_PER_JOB)]
    counts: Counter[int] = Counter()
    replies = ordered_map(
        "audio_cls.data.rates:rates_job", ({"paths": p} for p in parts), min(workers, len(parts) // 4)
    )
    for k, (part, reply) in enumerate(zip(parts, replies, strict=True)):
        tell(0, len(manifest), f"reading headers {k * _FILES_PER_JOB:,}/{len(paths):,}")
        if isinstance(reply, WorkerDied):
            continue  # decoding will name the file that did it
        for path, rate in zip(part, reply[0]["rates"], strict=True):
            if rate is not None:
                counts[rate] += clips[path]
    return counts


def _count_decoded_rates(manifest: Manifest, workers: int, tell: Callable[[int, int, str], None]) -> Counter[int]:
    """Return the number of clips of each rate, of those that the codec looks at in each file."""
    assert manifest.codec is not None
    positions: dict[str, list[int | None]] = {}
    for clip in manifest.clips:
        positions.setdefault(str(clip.path), []).append(clip.position)
    codec, counts = manifest.codec.to_dict(), Counter[int]()
    jobs = ({"codec": codec, "path": path, "positions": found} for path, found in positions.items())
    replies = ordered_map("audio_cls.data.decoding:rates_job", jobs, min(workers, len(positions) // 4))
    for k, reply in enumerate(replies):
        tell(0, len(manifest), f"reading headers of file {k + 1:,}/{len(positions):,}")
        if not isinstance(reply, WorkerDied):
            counts.update(rate for rate in reply[0]["rates"] if rate is not None)
    return counts
