"""Clips that hold the same audio under different names, and the sides of a split that they are on.

Two clips are identical when their packed samples are the same, silence at the beginning and the end left aside: copies of a
file, the same samples in WAV and FLAC, the same sound padded with zeros. `corpus.identical` holds what `find_identical` finds.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError
from audio_cls.data.audio import MIN_SECONDS, SILENCE_PEAK
from audio_cls.data.groups import PUBLISHED_SCHEMES, published_parts

if TYPE_CHECKING:
    from audio_cls.data.corpus import Corpus
    from audio_cls.data.splits import Split

__all__ = [
    "VERSION",
    "check_identical",
    "find_identical",
    "identical_declared",
    "identical_notes",
    "identical_on_two_sides",
    "identical_text",
    "label_conflicts",
    "undivided_groups",
    "without_silence",
]

VERSION = 1  # of the method, see `beside.kept_beside`
_QUIET = int(SILENCE_PEAK * 32768)  # steps of int16 that count as silence
_NAMED = 5
KEY = "data.split.allow_duplicates"


def without_silence(samples: NDArray[np.int16], sample_rate: int) -> NDArray[np.int16]:
    """Return a clip without the silence at its beginning and end (peak below -80 dBFS); all of it where less than 50 ms
    would be left.

    Args:
        samples: (length,) int16.
    """
    loud = (samples > _QUIET) | (samples < -_QUIET)
    first, last = int(loud.argmax()), len(samples) - int(loud[::-1].argmax())
    return samples[first:last] if last - first >= MIN_SECONDS * sample_rate and loud[first] else samples


def find_identical(
    clips: Sequence[int], samples_of: Callable[[int], NDArray[Any]], sample_rate: int
) -> list[list[int]]:
    """Return the sets of two or more clips with the same audio, ascending, by comparing SHA-256 of their samples.

    Rows that are no waveform are compared as they are.
    """
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for i in clips:
        stored = samples_of(i)
        payload = np.ascontiguousarray(without_silence(stored, sample_rate) if stored.ndim == 1 else stored)
        by_content[hashlib.sha256(payload.data).digest()].append(i)
    return [found for found in by_content.values() if len(found) > 1]


def undivided_groups(corpus: Corpus) -> Sequence[str | None]:
    """Return what a generated split must not divide, (n,): the corpus's groups, those joined that share identical clips.

    A clip without a group that has an identical one gets a group with it; without identical clips these are the corpus's groups.
    """
    if not corpus.identical:
        return corpus.groups
    names: list[str | None] = list(corpus.groups)
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while root.get(name, name) != name:
            name = root[name]
        return name

    for found in corpus.identical:
        first = names[found[0]] = names[found[0]] or f"\0identical {found[0]}"
        for i in found[1:]:
            names[i] = names[i] or first
            root[find(str(names[i]))] = find(first)
    return [None if name is None else find(name) for name in names]


def identical_on_two_sides(corpus: Corpus, split: Split) -> list[list[tuple[int, str]]]:
    """Return the sets of identical clips that stand on more than one side of a split: (clip, side), those not used left out."""
    if not corpus.identical:
        return []
    side_of = split.side_of()
    sets = ([(i, side_of[i]) for i in found if i in side_of] for found in corpus.identical)
    return [found for found in sets if len({side for _, side in found}) > 1]


def check_identical(corpus: Corpus, split: Split) -> None:
    """Refuse a split in which identical clips stand on two sides.

    Raises:
        UserError: naming a pair of each of the first five sets, their sides, and how many there are.
    """
    torn = identical_on_two_sides(corpus, split)
    if not torn:
        return
    named = []
    for found in torn[:_NAMED]:
        (a, side), (b, other) = found[0], next(pair for pair in found if pair[1] != found[0][1])
        named.append(f"{corpus.ids[a]!r} ({side}) = {corpus.ids[b]!r} ({other})")
    more = f" and {len(torn) - _NAMED} more" if len(torn) > _NAMED else ""
    raise UserError(
        f"{corpus.name!r}: {_sets(len(torn))} on two sides of the split, the same audio under different names: "
        f"{', '.join(named)}{more}. A model would be measured on clips that it was trained on. Remove the copies, use the split "
        f"'grouped' or 'k_fold', which keep them on one side, or accept them: {KEY}=true (recorded)"
    )


def identical_text(n: int) -> str:
    """Return the remark that goes with every figure of a split that has identical clips on two sides; empty for n = 0 sets."""
    if n == 0:
        return ""
    verb = "stands" if n == 1 else "stand"
    return f"{_sets(n)} {verb} on more than one side of the split ({KEY}=true): figures may be optimistic"


def identical_declared(experiment: Mapping[str, Any]) -> str:
    """Return the remark on an experiment (as `to_dict` gives it) that allows identical clips on two sides, where the corpus is
    not at hand to count them; empty for one that does not.
    """
    if not (experiment.get("data", {}).get("split") or {}).get("allow_duplicates"):
        return ""
    return f"identical clips may stand on more than one side of the split ({KEY}=true): figures may be optimistic"


def identical_notes(corpus: Corpus) -> list[str]:
    """Return what to say of a corpus with identical clips, and the ways on: a line for each."""
    sets = corpus.identical
    if not sets:
        return []
    first = " = ".join(repr(corpus.ids[i]) for i in sets[0][:2])
    notes = [f"{_sets(len(sets))}, such as {first}. Generated splits keep identical clips on one side"]
    for part, names in published_parts(corpus).items():
        torn = sum(len({names[i] for i in found} - {None}) > 1 for found in sets)
        if torn:
            notes.append(
                f"{_sets(torn)} {_have(torn)} clips in more than one of the published {part}. Remove the copies, or use "
                f"data.split=grouped or k_fold; data.split={PUBLISHED_SCHEMES[part]} needs {KEY}=true, which every record and page then says"
            )
    conflict = _conflict_note(corpus)
    return [*notes, conflict] if conflict else notes


def label_conflicts(corpus: Corpus) -> list[tuple[int, ...]]:
    """Return the sets of identical clips whose labels differ."""
    return [found for found in corpus.identical if len({tuple(corpus.label_lists[i]) for i in found}) > 1]


def _conflict_note(corpus: Corpus) -> str:
    """Return what to say of identical clips with different labels, naming the first three sets; empty if there are none."""
    conflicts = label_conflicts(corpus)
    if not conflicts:
        return ""

    def labelled(i: int) -> str:
        return f"{corpus.ids[i]!r} ({', '.join(corpus.classes[k] for k in corpus.label_lists[i]) or 'no label'})"

    named = []
    for found in conflicts[:3]:
        other = next(i for i in found if corpus.label_lists[i] != corpus.label_lists[found[0]])
        named.append(f"{labelled(found[0])} = {labelled(other)}")
    more = f" and {len(conflicts) - 3} more" if len(conflicts) > 3 else ""
    return f"{_sets(len(conflicts))} {_have(len(conflicts))} different labels: {'; '.join(named)}{more}. At most one of the labels is right"


def _have(n: int) -> str:
    return "has" if n == 1 else "have"


def _sets(n: int) -> str:
    return "1 set of identical clips" if n == 1 else f"{n} sets of identical clips"
