"""The contract of a suite on what its runs have recorded, checked whenever figures are reported: a run may be older than the declaration,
or its record may have been touched. `contract` checks what is declared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from audio_cls.ablation.contract import Plan, Planned
from audio_cls.ablation.declaration import Ablation
from audio_cls.ablation.training_rules import trained_otherwise
from audio_cls.core.errors import UserError
from audio_cls.experiment import Experiment
from audio_cls.metrics.classification import VERSION

if TYPE_CHECKING:
    from audio_cls.ablation.record import Recorded

__all__ = ["check_records"]


def check_records(ablation: Ablation, plan: Plan, records: Iterable[Recorded]) -> None:
    """Refuse recorded runs that do not keep the contract.

    Raises:
        UserError: naming run, key and both values.
    """
    planned = {(p.arm, p.cell): p for p in plan.cells}
    begun = {(r.arm, r.cell): r for r in records if r.facts}
    first: Recorded | None = None
    of_arm: dict[str, Recorded] = {}
    for place, record in begun.items():
        _check_experiment(record, planned[place])
        first = first or record
        for key, words in (("data.digest", "data"), ("metric.version", "metric code"), ("device.kind", "kind of device"), ("precision", "precision")):  # fmt: skip
            if key == "precision" and "precision" in ablation.differs:
                continue
            if record.facts[key] != first.facts[key]:
                raise _refusal(record, words, record.facts[key], f"{first.words} has {first.facts[key]}")
        other_run, noise = of_arm.setdefault(place[0], record), record.facts.get("background.digest", "none")
        if noise != other_run.facts.get("background.digest", "none"):
            other_noise = other_run.facts.get("background.digest", "none")
            raise _refusal(record, "background noise", noise, f"{other_run.words} has {other_noise}")
        if record.facts["metric.version"] != str(VERSION):
            raise _refusal(
                record, "metric code", f"version {record.facts['metric.version']}", f"this is version {VERSION}"
            )
        if record.facts["split.digest"] != planned[place].split_digest:
            raise _refusal(
                record, "split", record.facts["split.digest"][:16], f"declared {planned[place].split_digest[:16]}"
            )
        for key, value in record.tracked.items():
            if key in record.facts and value != record.facts[key]:
                raise _refusal(
                    record, f"the tag {key} in MLflow", value, f"the run itself recorded {record.facts[key]}"
                )
    if other := trained_otherwise(planned, begun):
        raise _refusal(
            begun[other.place],
            "training rules",
            f"corrected in {other.found}",
            f"others of the suite in {other.expected}",
        )
    for (arm, cell), record in begun.items():
        partner = begun.get((ablation.reference, cell))
        if partner is None or arm == ablation.reference:
            continue
        pair = planned[arm, cell].experiment, planned[ablation.reference, cell].experiment
        for key, words, same in (
            ("init.digest", "initial weights", _same_start(*pair)),
            ("order.digest", "clip order of the first epoch", pair[0].sampling == pair[1].sampling and pair[0].seed == pair[1].seed),
        ):  # fmt: skip
            if same and record.facts[key] != partner.facts[key]:
                raise _refusal(record, words, record.facts[key][:16], f"its partner in {ablation.reference!r} has {partner.facts[key][:16]}")  # fmt: skip


def _same_start(a: Experiment, b: Experiment) -> bool:
    """Whether two experiments must begin with the same weights."""
    bias = getattr(a.loss, "prior_bias", False), getattr(b.loss, "prior_bias", False)
    return (
        (a.model, a.features, a.data.clip_seconds, a.seed) == (b.model, b.features, b.data.clip_seconds, b.seed)
        and bias[0] == bias[1]
        and (not bias[0] or a.loss.kind == b.loss.kind)
    )


def _check_experiment(record: Recorded, planned: Planned) -> None:
    try:
        found = Experiment.parse(record.experiment, record.words)
    except UserError as error:
        raise UserError(f"{record.words}: its recorded experiment cannot be read: {error}") from None
    for key, (mine, theirs) in found.diff(planned.experiment).items():
        raise _refusal(record, key, repr(mine), f"declared is {theirs!r}: a difference that no arm declares")
    for key, value in planned.experiment.flatten().items():
        written = record.params.get(key)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if written is not None and len(written) < 5000 and written != text:
            raise _refusal(record, f"the parameter {key} in MLflow", written, f"declared is {text}")


def _refusal(record: Recorded, what: str, found: str, expected: str) -> UserError:
    return UserError(
        f"not comparable: {record.words} (run {record.run_id or 'without id'}): {what} is {found}, {expected}"
    )
