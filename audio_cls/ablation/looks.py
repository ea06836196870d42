"""Looks at a suite: how often its verdicts were seen on data that no earlier look had. They are kept in its Optuna study.

Whoever extends a suite because its verdict was not clear, and looks again, gives chance a second try. So each look is
recorded, and alpha is spent over the looks (`metrics.multiplicity.spend`). Verdicts are given only when every planned run is
finished, so that watching a suite that runs costs nothing; the same report on the same data is the same look.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from audio_cls.core.formatting import count
from audio_cls.metrics.multiplicity import spend
from audio_cls.queue.storage import load_study

if TYPE_CHECKING:
    from audio_cls.ablation.record import Recorded
    from audio_cls.metrics.comparison import Comparison
    from audio_cls.queue.storage import StudyStorage

__all__ = ["ALPHA", "Look", "Looks", "begin_looks", "describe_looks", "read_looks", "record_look", "seen_by"]

ALPHA = 0.05
"""The share of false verdicts that all looks at a suite together may have."""

_ATTRIBUTE = "looks"  # of the study; None: of a suite that was begun before looks were recorded


@dataclass(frozen=True)
class Look:
    """What one look saw.

    time: UTC. digest: of the finished runs and their figures. runs, failed: their numbers. arms, seeds, folds: of the grid.
    standard_errors: arm -> of its difference, None if it has none. information: relative to the first look, which has 1.
    """

    time: str
    digest: str
    runs: int
    failed: int
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    standard_errors: Mapping[str, float | None]
    information: float = 1.0


@dataclass(frozen=True)
class Looks:
    """The looks at a suite, the present one last; none while runs are under way (`finished` is False then).

    alpha: the nominal level of the present look. assumed: earlier looks are not known, since the suite was begun
    before they were recorded. unrecorded: the present look could not be written down.
    """

    finished: bool
    looks: tuple[Look, ...] = ()
    alpha: float = ALPHA
    assumed: bool = False
    unrecorded: bool = False

    def sentences(self) -> list[str]:
        """Say how often verdicts were looked at and what that costs; while runs are under way that there are none yet."""
        if not self.finished:
            return ["differences without verdicts until every planned run is finished: looking now costs nothing"]
        kept = ", the rest is kept for a suite that is extended" if len(self.looks) == 1 else " by all looks together"
        lines = [
            f"verdicts looked at {count(len(self.looks), 'time')}: tested at {100 * self.alpha:.2g} % of {100 * ALPHA:.2g} %{kept}"
        ]
        if len(self.looks) > 1 and len(self.looks[-1].arms) > len(self.looks[-2].arms):
            before, now = (len(look.arms) - 1 for look in self.looks[-2:])
            lines.append(f"the arms grew since the last look: Holm's correction is over {now}, it was over {before}")
        if self.assumed:
            lines.append(
                "begun before looks were recorded: earlier reports are not counted, as if the first recorded look were the first"
            )
        if self.unrecorded:
            lines.append("this look is not recorded: the workspace is read-only")
        return lines


def seen_by(records: Sequence[Recorded], comparisons: Mapping[str, Comparison]) -> Look:
    """Return what a look at these records sees, all of them finished."""
    grid = [(r.arm, r.seed, r.fold) for r in records]
    arms, seeds, folds = (tuple(dict.fromkeys(values)) for values in zip(*grid, strict=True))
    found = [[r.arm, r.seed, r.fold, r.state, sorted(r.last.items()), sorted(r.metrics.items())] for r in records]
    digest = hashlib.sha256(json.dumps(sorted(found, key=str)).encode()).hexdigest()[:16]
    errors = {a: c.standard_error if isfinite(c.standard_error) else None for a, c in comparisons.items()}
    return Look(
        time=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        digest=digest,
        runs=len(records),
        failed=sum(r.state == "FAILED" for r in records),
        arms=arms,
        seeds=tuple(sorted(seeds)),
        folds=tuple(sorted(folds)),
        standard_errors=errors,
    )


def begin_looks(study: str, storage: StudyStorage) -> None:
    """Note of a new suite that every look at it will be recorded; call it alone among all machines."""
    opened = load_study(study, storage)
    if _ATTRIBUTE not in opened.user_attrs:
        opened.set_user_attr(_ATTRIBUTE, {"assumed": False, "looks": []})


def read_looks(attributes: Mapping[str, Any]) -> Looks:
    """Return the looks that a study's attributes record; the alpha is that of the last one."""
    stored = attributes.get(_ATTRIBUTE)
    if stored is None:
        return Looks(finished=True, assumed=True)
    looks = tuple(
        Look(**{**look, **{key: tuple(look[key]) for key in ("arms", "seeds", "folds")}}) for look in stored["looks"]
    )
    return Looks(True, looks, _level(looks), stored["assumed"])


def record_look(seen: Look, study: str, storage: StudyStorage, *, write: bool) -> Looks:
    """Record a look, unless it was recorded before: the same data are the same look.

    It is recorded before anything is shown, so that whoever is killed in between has looked once, not twice and not never.

    Args:
        write: False in a read-only workspace: the look counts for what is said, and is not recorded.

    Returns:
        all looks up to this one.
    """
    if not write:
        return replace(_with(read_looks(load_study(study, storage).user_attrs), seen), unrecorded=True)
    with storage.lock(study):
        opened = load_study(study, storage)
        before = read_looks(opened.user_attrs)
        looks = _with(before, seen)
        if looks is not before and len(looks.looks) > len(before.looks):
            opened.set_user_attr(
                _ATTRIBUTE, {"assumed": looks.assumed, "looks": [asdict(look) for look in looks.looks]}
            )
    return looks


def describe_looks(attributes: Mapping[str, Any]) -> list[str]:
    """Return a line for each recorded look at a suite, from its study's attributes."""
    looks = read_looks(attributes)
    if not looks.looks:
        return [] if looks.assumed else ["verdicts not looked at yet"]
    lines = [
        f"look {number}: {look.time} UTC, {look.runs} runs ({len(look.arms)} arms, {count(len(look.seeds), 'seed')}, "
        f"{count(len(look.folds), 'fold')}), tested at {100 * _level(looks.looks[:number]):.2g} %"
        for number, look in enumerate(looks.looks, start=1)
    ]
    return [*lines, *looks.sentences()[1:]]


def _with(before: Looks, seen: Look) -> Looks:
    """Return the looks up to one at these data: those before it, or with it as a new one."""
    for number, look in enumerate(before.looks, start=1):
        if look.digest == seen.digest:
            upto = before.looks[:number]
            return before if number == len(before.looks) else replace(before, looks=upto, alpha=_level(upto))
    information = _information(before.looks[-1], seen) if before.looks else 1.0
    looks = (*before.looks, replace(seen, information=information))
    return replace(before, looks=looks, alpha=_level(looks))


def _level(looks: Sequence[Look]) -> float:
    return spend(ALPHA, [look.information for look in looks]) if looks else ALPHA


def _information(last: Look, seen: Look) -> float:
    """Return the information of a look, relative to the first one's.

    Of the arms that both saw, the one whose standard error has shrunk most tells, which is cautious: the more is new, the less the
    earlier look says of this one. It cannot have grown by more than the number of pairs has.
    """
    pairs = [len(look.seeds) * len(look.folds) * (look.runs - look.failed) / look.runs for look in (last, seen)]
    most = max(pairs[1] / pairs[0], 1.0) if pairs[0] > 0 else 1.0
    ratios = [
        (before / now) ** 2
        for arm, before in last.standard_errors.items()
        if before and (now := seen.standard_errors.get(arm))
    ]
    return last.information * (min(max(*ratios, 1.0), most) if ratios else most)
