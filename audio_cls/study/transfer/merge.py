"""Two copies of one study that both continued, joined into one.

A configuration is the same on both sides when it has the same index and the same parameters, or (once merged before, under
another index) the same parameters and the same moment of birth. It is kept once: the side that came further wins, ours where
they are even. Configurations that have one index but different parameters (each copy drew its own) are both kept; the other
copy's gets the next index that neither has used.

What a merge cannot give: the study that one machine would have run alone. Each copy drew without knowing what the other
found, and what is drawn from now on depends on both histories.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from audio_cls.queue.queue import LIVE, Tally
from audio_cls.queue.record import ABANDONED, config_of, is_begun, is_finished, record_of, root_of
from audio_cls.study.writing import with_attrs

__all__ = ["Joined", "identity_difference", "join"]


@dataclass
class Joined:
    """The trials of both, numbered again where they are the other copy's.

    `taken` maps the new number of each of the other copy's trials to the old one, `place` the other copy's roots to where the
    furthest checkpoint of that configuration belongs: (root, number). `replaced` are our trials that a further attempt of
    the other copy's supersedes.
    """

    trials: list[FrozenTrial]
    taken: dict[int, int] = field(default_factory=dict)
    place: dict[int, tuple[int, int]] = field(default_factory=dict)
    replaced: list[FrozenTrial] = field(default_factory=list)
    same: int = 0
    further: int = 0
    added: int = 0
    renumbered: int = 0

    def summary(self) -> str:
        """In words."""
        return (
            f"{self.added} configurations added ({self.renumbered} of them under a new index), {self.same} were the same on both "
            f"sides, {self.further} had come further in the other copy"
        )


def join(mine: Sequence[FrozenTrial], theirs: Sequence[FrozenTrial]) -> Joined:
    """Our trials with what another copy has beyond them. No trial may be running."""
    ours, other = Tally.of(mine), Tally.of(theirs)
    out = Joined(list(mine))
    born = {_birth(t): k for t in mine if (k := config_of(t)) is not None and t.datetime_start}
    used = {*ours.latest, *other.latest}
    for config, latest in sorted(other.latest.items()):
        attempts = [t for t in theirs if config_of(t) == config and not _abandoned(t)]
        if not _begun(latest):
            continue
        here = ours.latest.get(config)
        if here is not None and not _begun(here):
            out.trials[here.number] = _withdrawn(here)
            here = None
            index: int | None = config
        else:
            index = config if here is None else None
        if here is None or not _same_params(here, latest):
            again = next((born[_birth(t)] for t in attempts if t.datetime_start and _birth(t) in born), None)
            here = ours.latest.get(again) if again is not None else None
        if here is not None and _begun(here):
            _join_same(out, here, latest)
        else:
            if index is None:
                index = max(used) + 1
                out.renumbered += 1
            used.add(index)
            _add(out, attempts, index)
    known = {_birth(t) for t in mine if config_of(t) is None}
    for trial in theirs:
        if config_of(trial) is None and trial.state.is_finished() and _birth(trial) not in known:
            _append(out, trial)
    return out


def identity_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return how two stored identities differ, one line a difference; the space as a diff of its source."""
    lines: list[str] = []
    a, b = _flat(ours), _flat(theirs)
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) == b.get(key) or key in ("space.digest", "format"):
            continue
        if key == "space.source":
            diff = difflib.unified_diff(
                str(a.get(key)).splitlines(), str(b.get(key)).splitlines(), "here", "archive", lineterm="", n=1
            )
            lines += ["space:", *(f"  {line}" for line in diff)]
        else:
            lines.append(f"{key}: here {a.get(key, 'none')!r}, in the archive {b.get(key, 'none')!r}")
    return lines


def _join_same(out: Joined, here: FrozenTrial, there: FrozenTrial) -> None:
    if _rank(there) <= _rank(here):
        out.same += 1
        return
    out.further += 1
    out.replaced.append(here)
    if here.state in LIVE:
        out.trials[here.number] = _withdrawn(here)
    number = _append(
        out, there,
        config=config_of(here), root_trial=root_of(here), resumed_from=here.number,
        attempt=record_of(here).attempt + 1, resume_reason="merged",
    )  # fmt: skip
    out.place[root_of(there)] = (root_of(here), number)


def _add(out: Joined, attempts: Sequence[FrozenTrial], index: int) -> None:
    """A configuration of the other copy's with all its attempts."""
    out.added += 1
    numbers: dict[int, int] = {}
    root = len(out.trials)
    for trial in attempts:
        attrs: dict[str, Any] = {"config": index}
        if (earlier := record_of(trial).resumed_from) is not None:
            before = numbers.get(earlier, root)
            attrs |= {"root_trial": root, "resumed_from": before} if before < len(out.trials) else {}
        numbers[trial.number] = _append(out, trial, **attrs)
    out.place[root_of(attempts[-1])] = (root, numbers[attempts[-1].number])


def _append(out: Joined, trial: FrozenTrial, **attrs: Any) -> int:
    number = len(out.trials)
    out.trials.append(with_attrs(trial, number=number, **attrs))
    out.taken[number] = trial.number
    return number


def _withdrawn(trial: FrozenTrial) -> FrozenTrial:
    return with_attrs(trial, state=TrialState.FAIL, outcome=ABANDONED, reason="superseded by a merge")


def _rank(trial: FrozenTrial) -> tuple[int, int]:
    """Return how far a configuration has come; a revival under way is more than the pruned trial that it continues from."""
    if trial.state == TrialState.COMPLETE:
        kind = 3
    elif trial.state == TrialState.PRUNED or record_of(trial).revived:
        kind = 2
    else:
        kind = 1 if is_finished(trial) else 0
    return kind, len(trial.intermediate_values)


def _begun(trial: FrozenTrial) -> bool:
    return bool(trial.params) or is_begun(trial)


def _abandoned(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and record_of(trial).outcome == ABANDONED


def _same_params(a: FrozenTrial, b: FrozenTrial) -> bool:
    return _params(a) == _params(b)


def _params(trial: FrozenTrial) -> str:
    return json.dumps(trial.params or trial.system_attrs.get("fixed_params", {}), sort_keys=True, default=str)


def _birth(trial: FrozenTrial) -> tuple[str, str]:
    return _params(trial), trial.datetime_start.isoformat() if trial.datetime_start else ""


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, content in value.items():
        if isinstance(content, Mapping):
            out |= _flat(content, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = content
    return out
