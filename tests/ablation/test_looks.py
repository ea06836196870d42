"""Looks at a suite: recorded once for the same data, never for a suite under way, and paid for when it is extended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audio_cls.ablation.looks import (
    ALPHA,
    Looks,
    begin_looks,
    describe_looks,
    read_looks,
    record_look,
    seen_by,
)
from audio_cls.ablation.record import Recorded
from audio_cls.metrics.paired import Comparison, compare
from audio_cls.queue.cells import Cells
from audio_cls.queue.storage import StudyStorage, load_study, open_storage, open_study

STUDY = "ablation:s"


@pytest.fixture
def storage(tmp_path: Path) -> StudyStorage:
    """Of a new suite, at which nobody has looked."""
    opened = open_storage(tmp_path / "optuna.db")
    open_study(Cells(STUDY, "ablation", "val/macro_f1", "maximize"), opened)
    begin_looks(STUDY, opened)
    return opened


def records(seeds: int, arms: tuple[str, ...] = ("plain", "mixup"), failed: int = 0) -> list[Recorded]:
    """The runs of a finished suite on two folds."""
    found = []
    for i, (seed, fold, arm) in enumerate((s, k, a) for s in range(seeds) for k in (1, 2) for a in arms):
        figures = {"macro_f1": 0.5 + 0.01 * i}
        state = "FAILED" if i < failed else "COMPLETE"
        found.append(Recorded(arm, seed, fold, state, "", None, {}, {}, figures, figures, {}))
    return found


def compared(error: float, arms: tuple[str, ...] = ("mixup",)) -> dict[str, Comparison]:
    """Comparisons with this standard error."""
    c = compare({(0, 1): 0.5, (1, 1): 0.6}, {(0, 1): 0.4, (1, 1): 0.4}, test_to_train=0.25)
    return {arm: replace(c, standard_error=error) for arm in arms}


def attributes(storage: StudyStorage) -> dict[str, Any]:
    return load_study(STUDY, storage).user_attrs


def test_the_same_data_are_the_same_look(storage: StudyStorage) -> None:
    assert describe_looks(attributes(storage)) == ["verdicts not looked at yet"]
    first = record_look(seen_by(records(2), compared(0.02)), STUDY, storage, write=True)
    assert (len(first.looks), first.assumed, round(first.alpha, 6)) == (1, False, 0.04)
    again = record_look(seen_by(records(2), compared(0.02)), STUDY, storage, write=True)
    assert again.looks == first.looks == read_looks(attributes(storage)).looks  # also after a crash before it was shown
    assert again.sentences() == [
        "verdicts looked at 1 time: tested at 4 % of 5 %, the rest is kept for a suite that is extended"
    ]


def test_an_extended_suite_is_tested_at_what_is_left(storage: StudyStorage) -> None:
    first = record_look(seen_by(records(2), compared(0.02)), STUDY, storage, write=True)
    second = record_look(seen_by(records(4), compared(0.02 / 2**0.5)), STUDY, storage, write=True)
    assert [look.information for look in second.looks] == [1.0, pytest.approx(2.0)]
    assert 0.008 < second.alpha < ALPHA - first.alpha + 0.02
    assert second.alpha < first.alpha
    assert second.sentences()[0].startswith("verdicts looked at 2 times: tested at")
    assert [line[:6] for line in describe_looks(attributes(storage))] == ["look 1", "look 2"]
    # the look before is still what it was
    assert record_look(seen_by(records(2), compared(0.02)), STUDY, storage, write=True).alpha == first.alpha
    assert len(read_looks(attributes(storage)).looks) == 2


def test_what_grew_little_costs_less(storage: StudyStorage) -> None:
    """The more the looks share, the more the earlier one says of the later: more seeds on the same clips."""
    record_look(seen_by(records(2), compared(0.02)), STUDY, storage, write=False)
    record_look(seen_by(records(2), compared(0.02)), STUDY, storage, write=True)
    near = record_look(seen_by(records(4), compared(0.0195)), STUDY, storage, write=False)
    far = record_look(seen_by(records(4), compared(0.001)), STUDY, storage, write=False)
    assert near.alpha > far.alpha
    assert far.looks[-1].information == 2.0  # never more than the pairs have grown


def test_a_run_that_was_trained_again_is_new_data(storage: StudyStorage) -> None:
    record_look(seen_by(records(2, failed=1), compared(0.02)), STUDY, storage, write=True)
    looks = record_look(seen_by(records(2), compared(0.02)), STUDY, storage, write=True)
    assert [look.failed for look in looks.looks] == [1, 0]


def test_a_read_only_workspace_counts_and_does_not_record(storage: StudyStorage) -> None:
    found = record_look(seen_by(records(2), compared(0.02)), STUDY, storage, write=False)
    assert (len(found.looks), found.unrecorded) == (1, True)
    assert read_looks(attributes(storage)).looks == ()
    assert found.sentences()[-1] == "this look is not recorded: the workspace is read-only"


def test_a_suite_from_before_says_what_is_assumed(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "optuna.db")
    open_study(Cells(STUDY, "ablation", "val/macro_f1", "maximize"), storage)
    assert describe_looks(attributes(storage)) == []
    for seeds in (2, 3):
        looks = record_look(seen_by(records(seeds), compared(0.02)), STUDY, storage, write=True)
        assert (looks.assumed, len(looks.looks)) == (True, seeds - 1)
        assert any("begun before looks were recorded" in line for line in looks.sentences())


def test_new_arms_join_the_family(storage: StudyStorage) -> None:
    record_look(seen_by(records(2), compared(0.02)), STUDY, storage, write=True)
    more = ("plain", "mixup", "roll", "both")
    looks = record_look(seen_by(records(2, more), compared(0.02, more[1:])), STUDY, storage, write=True)
    assert "Holm's correction is over 3, it was over 1" in " ".join(looks.sentences())
    assert Looks(finished=False).sentences()[0].endswith("looking now costs nothing")
