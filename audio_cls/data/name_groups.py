r"""Groups (recordings, speakers) that file names suggest, for data sets that name none.

Known namings are looked for first (UrbanSound8K, ESC-50, Speech Commands, RAVDESS, Freesound), then a speaker's or a recording's word
with a number (`spk01_...`), then any part of the name that has letters and a number, or is a word that comes with several classes.

>>> found = suggest_groups([f"spk{i % 4}_{i}.wav" for i in range(20)], ["a", "b"] * 10)
>>> found.n, found.example
(4, 'spk0')
>>> suggest_groups([f"{i:04d}.wav" for i in range(20)], ["a", "b"] * 10) is None
True
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING

from audio_cls.core.errors import UserError
from audio_cls.data.groups import shared_groups
from audio_cls.data.manifest import Manifest, display_name, split_name

if TYPE_CHECKING:
    from audio_cls.data.corpus import Corpus
    from audio_cls.data.splits import Split

__all__ = ["NameGroups", "corpus_suggestion", "name_group_notes", "name_group_warning", "suggest_groups", "with_groups"]

_NAME, _END = r"(?:^|/)", r"\.\w+$"
_KNOWN = (
    ("UrbanSound8K's Freesound id", rf"{_NAME}(\d+)-\d+-\d+-\d+{_END}"),
    ("ESC-50's Freesound id", rf"{_NAME}\d-(\d+)-[A-Z]-\d+{_END}"),
    ("Speech Commands' speaker", rf"{_NAME}([0-9a-f]{{8}})_nohash_\d+{_END}"),
    ("RAVDESS's actor", rf"{_NAME}(?:\d\d-){{6}}(\d\d){_END}"),
    ("Freesound's uploader", rf"{_NAME}\d+__([^/]+?)__[^/]+$"),
    ("a Freesound id", rf"{_NAME}([1-9]\d{{4,6}})[_-]\d{{1,4}}{_END}"),
    (
        "a speaker or recording",
        rf"(?i){_NAME}((?:spk|spkr|speaker|subject|subj|sub|actor|patient|talker|singer|user|person|rec|recording|session)[_-]?\d+)[_-]",
    ),
)
_COUNTERS = frozenset(["take", "clip", "part", "seg", "segment", "chunk", "slice", "frame", "file", "sample", "aug", "v", "ver", "version", "ch", "channel", "fold", "split", "set", "class", "label", "copy", "mic", "snr", "db", "hz", "no", "nr", "n", "id", "track"])  # fmt: skip
_MATCHED = 0.95  # share of the names that must have a form
_REPEATED = 0.05  # share of the clips that must share a group with another, beyond the first of it
_WORDS = 3  # a word must take so many values


@dataclass(frozen=True)
class NameGroups:
    """Groups that names suggest.

    what: the part of the name. pattern: a regular expression whose first group is the clip's group. groups: (n,) names, None where
    a name has none.
    """

    what: str
    pattern: str
    groups: tuple[str | None, ...]

    @property
    def n(self) -> int:
        return len(set(self.groups) - {None})

    @property
    def example(self) -> str:
        """The group of most clips, the first by name among equals."""
        counts = Counter(g for g in self.groups if g is not None)
        return min(counts, key=lambda g: (-counts[g], g))


def suggest_groups(paths: Sequence[str], labels: Sequence[object]) -> NameGroups | None:
    """Return the groups that the names of files suggest; None where they suggest none.

    Args:
        paths: with forward slashes.
        labels: of each file, comparable: what is only another name of the class is no group.
    """
    for what, pattern in _KNOWN:
        groups = _matched(paths, pattern)
        if _plausible(groups, labels):
            return NameGroups(what, pattern, groups)
    for what, pattern, words in _parts(paths):
        groups = _matched(paths, pattern)
        if _plausible(groups, labels, by_part=True, words=words):
            return NameGroups(what, pattern, groups)
    return _by_file(paths)


def with_groups(manifest: Manifest, wanted: bool | str) -> Manifest:
    """Return a manifest whose clips have the groups that their names tell.

    Args:
        wanted: True for the groups that the names suggest, or a regular expression searched in each clip's path below the
            data set's folder: what its first group (or else all of it) matches is the clip's group.

    Raises:
        UserError: for groups that are there already, names that suggest none, and a pattern that is none or fits no name.
    """
    if not wanted:
        return manifest
    named = sum(clip.group is not None for clip in manifest.clips)
    if named:
        raise UserError(
            f"{manifest.source}: {named} of {len(manifest)} clips name their group already: leave out --groups-from-names and "
            "--group-pattern, or take the groups out of the data set's table"
        )
    paths = [display_name(manifest.relative(clip)) for clip in manifest.clips]
    if wanted is True:
        found = suggest_groups(paths, [clip.labels for clip in manifest.clips])
        if found is None:
            raise UserError(
                f"{manifest.source}: the names of the files suggest no groups, such as {paths[0]!r}. Say which part of the name is the "
                "group: --group-pattern 'speaker\\d+'"
            )
        pattern, groups = found.pattern, found.groups
    else:
        pattern, groups = wanted, tuple(_by_pattern(manifest, paths, wanted))
    clips = tuple(replace(clip, group=group) for clip, group in zip(manifest.clips, groups, strict=True))
    return replace(manifest, clips=clips, group_pattern=pattern)


def corpus_suggestion(corpus: Corpus) -> NameGroups | None:
    """Return the groups that the file names of a corpus suggest; None for one that has groups, or whose names suggest none."""
    if any(group is not None for group in corpus.groups):
        return None
    columns = corpus.index["columns"]
    return _suggestion(tuple(columns["path"]), tuple(map(tuple, columns["labels"])))


def name_group_notes(corpus: Corpus) -> list[str]:
    """Return what to say of a corpus without groups whose file names suggest some."""
    found = corpus_suggestion(corpus)
    return [] if found is None else [f"{_says(found)}. {_way_on(found)}"]


def name_group_warning(corpus: Corpus, split: Split) -> str:
    """Return what to say before training on a random split that divides groups which the file names suggest; else empty."""
    found = corpus_suggestion(corpus)
    if found is None:
        return ""
    torn = len(shared_groups(corpus, split, found.groups))
    if not torn:
        return ""
    return f"{_says(found)}, {torn} of which stand on more than one side of this random split. {_way_on(found)}"


def _says(found: NameGroups) -> str:
    clips = sum(group == found.example for group in found.groups)
    return f"no groups are declared, but the names of the files suggest {found.n} ({found.what}; {found.example!r} has {clips} clips)"


def _way_on(found: NameGroups) -> str:
    return (
        "Clips of one recording or speaker belong on one side: prepare again with --groups-from-names (in Python: "
        "groups_from_names=True), or name the groups yourself (--group-pattern, or a column `group`)"
    )


@lru_cache(maxsize=8)
def _suggestion(paths: tuple[str, ...], labels: tuple[tuple[int, ...], ...]) -> NameGroups | None:
    return suggest_groups(paths, labels)


def _matched(paths: Sequence[str], pattern: str) -> tuple[str | None, ...]:
    search = re.compile(pattern).search
    return tuple(m.group(1) if (m := search(path)) else None for path in paths)


def _plausible(
    groups: Sequence[str | None], labels: Sequence[object], *, by_part: bool = False, words: bool = False
) -> bool:
    """Whether these may be groups: nearly all names have one, some are shared, and they are not the classes by another name."""
    clips = Counter(group for group in groups if group is not None)
    n, found = len(groups), sum(clips.values())
    if len(clips) < 2 or found < _MATCHED * n or found - len(clips) < max(1, _REPEATED * n):
        return False
    classes: dict[object, set[object]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        if group is not None:
            classes[group].add(label)
    if all(len(found) == 1 for found in classes.values()) and len(clips) <= len(set(labels)):
        return False
    if by_part and (len(clips) > n / 2 or median(clips.values()) < 2):
        return False
    return not words or (len(clips) >= _WORDS and sum(len(found) > 1 for found in classes.values()) >= len(clips) / 2)


def _parts(paths: Sequence[str]) -> Iterator[tuple[str, str, bool]]:
    """Yield the parts of names (between `_` and `-`) that may be a group: what, pattern, whether they are words alone. The names
    must have equally many parts.
    """
    names = [re.split(r"[_-]", path.rpartition("/")[2].rpartition(".")[0]) for path in paths]
    if len({len(parts) for parts in names}) != 1 or len(names[0]) < 2:
        return
    for words in (False, True):
        for k in range(len(names[0])):
            values = {parts[k] for parts in names}
            form = r"[A-Za-z]+" if words else r"(?=[^/_-]*[A-Za-z])(?=[^/_-]*\d)[A-Za-z0-9]+"
            if not all(re.fullmatch(form, value) for value in values):
                continue
            if any(re.sub(r"\d+", "", value).lower() in _COUNTERS or split_name(value) for value in values):
                continue
            before = rf"(?:[^/_-]*[_-]){{{k}}}"
            yield f"part {k + 1} of the name", rf"{_NAME}{before}([^/_-]+)(?:[_-][^/]*)?{_END}", words


def _by_file(paths: Sequence[str]) -> NameGroups | None:
    """Return the files as groups where several clips were cut from one."""
    if len(paths) - len(set(paths)) < max(1, _REPEATED * len(paths)) or len(set(paths)) < 2:
        return None
    return NameGroups("clips cut from one file", r"^(.*)$", tuple(paths))


def _by_pattern(manifest: Manifest, paths: Sequence[str], text: str) -> list[str | None]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UserError(f"--group-pattern {text!r}: not a regular expression: {error}") from None
    found = [pattern.search(path) for path in paths]
    groups = [(m.group(1) if m.re.groups else m.group()) or None if m else None for m in found]
    if not any(groups):
        raise UserError(f"{manifest.source}: --group-pattern {text!r} fits no name, such as {paths[0]!r}")
    return groups
