"""Split schemes: a contract for each kind, proportions against scikit-learn, and leaks refused by name."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.data.groups import natural_key, shared_groups, shared_groups_text
from audio_cls.data.splits import (
    CrossValidation,
    Folds,
    Grouped,
    KFold,
    LeaveOneGroupOut,
    Official,
    Split,
    SplitScheme,
    check_leak,
    stratify,
)
from audio_cls.experiment import Experiment
from audio_cls.runs.split_overlap import Overlap, overlap_of

RECORDED = """{"data": {"corpus": "demo", "sample_rate": 16000, "clip_seconds": 5.0, "crop": "random", "pad": "zero",
"split": {"kind": "folds", "test_fold": 1, "validation_fold": null}}, "features": {"kind": "log_mel", "normalise": "band",
"n_fft": 1024, "hop_length": 256, "win_length": null, "n_mels": 64, "f_min": 0.0, "f_max": null, "mel_scale": "htk",
"mel_norm": "none", "floor": 1e-10, "top_db": null}, "augment": {}, "sampling": {"kind": "uniform"}, "model": {"kind":
"small_cnn", "widths": [16, 32, 64], "dropout": 0.0}, "loss": {"kind": "cross_entropy", "class_weights": "none",
"effective_beta": 0.999, "label_smoothing": 0.0, "prior_bias": false}, "optimizer": {"kind": "adamw", "lr": 0.001,
"weight_decay": 0.01, "beta1": 0.9, "beta2": 0.999}, "schedule": {"kind": "cosine", "warmup_epochs": 0.0, "final": 0.0},
"training": {"epochs": 30, "batch_size": 32, "metric": "val/macro_f1", "early_stopping": null, "clip_norm": null,
"ema_decay": null, "precision": "auto"}, "seed": 0}"""
"""An experiment as runs before the generated splits recorded it."""


def corpus(
    n: int = 300, n_classes: int = 4, n_groups: int | None = 60, multilabel: bool = False, **changes: Any
) -> Corpus:
    """A stand-in with what the schemes read; groups lie within folds and within published splits."""
    rng = np.random.default_rng(0)
    p = 2.0 ** -np.arange(n_classes)
    if multilabel:
        targets = (rng.uniform(size=(n, n_classes)) < p * 0.6).astype(np.float32)
    else:
        targets = np.eye(n_classes, dtype=np.float32)[rng.choice(n_classes, n, p=p / p.sum())]
    group = np.arange(n) if n_groups is None else rng.integers(n_groups, size=n)
    fields: dict[str, Any] = {
        "name": "stand-in",
        "digest": "d",
        "targets": targets,
        "folds": (1 + group % 5).astype(np.int64),
        "groups": tuple(None if n_groups is None else f"g{g}" for g in group),
        "lists": {},
        "splits": tuple("test" if g % 5 == 0 else "train" for g in group),
        "ids": tuple(f"clip{i}" for i in range(n)),
        "identical": (),
    }
    return cast(Corpus, _Sized(**{**fields, **changes}))


def fold_lists(data: Corpus) -> dict[int, dict[str, np.ndarray]]:
    """The folds of a corpus as lists of clips."""
    return {
        fold: {
            "train": np.flatnonzero(data.folds != fold),
            "validation": np.flatnonzero(data.folds == fold),
        }
        for fold in range(1, 6)
    }


class _Sized(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.targets)


@pytest.mark.parametrize("kind", SplitScheme.members())
@pytest.mark.parametrize("multilabel", [False, True])
def test_contract_of_every_scheme(kind: str, multilabel: bool) -> None:
    lists = {"lists": fold_lists(corpus(multilabel=multilabel))} if kind == "lists" else {}
    data, scheme = corpus(multilabel=multilabel, **lists), SplitScheme.parse({"kind": kind})
    split, again = scheme.assign(data), scheme.assign(data)
    together = np.concatenate(list(split.sides().values()))
    assert len(np.unique(together)) == len(together) == len(data)
    assert len(split.train) > len(split.validation) > 0
    for side in split.sides().values():
        assert side.dtype == np.int64
        assert np.array_equal(side, np.sort(side))
    assert split.digest == again.digest
    check_leak(data, split)
    if kind != "auto":  # it has no keys
        key = "seed" if kind == "official" else scheme.fold_key
        other = SplitScheme.parse({"kind": kind, key: 2})
        assert other.assign(data).digest != split.digest
    assert scheme.assign(corpus(multilabel=multilabel, digest="e", **lists)).digest != split.digest


def test_folds_take_the_next_fold_to_validate() -> None:
    data = corpus()
    for k in range(1, 6):
        split = Folds(test_fold=k).assign(data)
        assert set(data.folds[split.test]) == {k}
        assert set(data.folds[split.validation]) == {k % 5 + 1}
        assert set(data.folds[split.train]) == set(range(1, 6)) - {k, k % 5 + 1}
    assert set(data.folds[Folds(test_fold=2, validation_fold=5).assign(data).validation]) == {5}


@pytest.mark.parametrize("kind", ["folds", "cross_validation", "k_fold", "leave_one_group_out"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_each_clip_is_held_out_in_one_fold(kind: str, multilabel: bool) -> None:
    data, scheme = corpus(n_groups=12, multilabel=multilabel), SplitScheme.parse({"kind": kind})
    folds = scheme.folds(data)
    assert list(folds) == list(range(1, {"k_fold": 5, "leave_one_group_out": 12}.get(kind, 5) + 1))
    held_out = []
    for number, name in folds.items():
        at = scheme.model_copy(update={scheme.fold_key: number})
        assert (at.fold_number(data), at.fold_name(data)) == (number, name)
        split = at.assign(data)
        held_out.append(split.test if kind == "folds" else split.validation)
        check_leak(data, split)
        if kind == "leave_one_group_out":
            assert {data.groups[i] for i in held_out[-1]} == {name}
    assert np.array_equal(np.sort(np.concatenate(held_out)), np.arange(len(data)))


@pytest.mark.parametrize("n_groups", [None, 60])
def test_generated_folds_are_stratified_and_seeded(n_groups: int | None) -> None:
    data = corpus(n_groups=n_groups)
    share = data.targets.mean(axis=0)
    for fold in range(1, 6):
        validation = KFold(fold=fold).assign(data).validation
        assert len(validation) == pytest.approx(60, abs=9)
        assert np.abs(data.targets[validation].mean(axis=0) - share).max() < 0.06
    digests = {KFold(seed=seed).assign(data).digest for seed in range(3)}
    assert len(digests) == 3, "the split's seed draws other folds"
    assert len({KFold(k=k).assign(data).digest for k in (3, 4, 5)}) == 3


@pytest.mark.parametrize("scheme", [KFold(fold=5, held_out="test"), LeaveOneGroupOut(fold="g3", held_out="test")])
def test_a_generated_fold_can_be_kept_for_the_test(scheme: KFold | LeaveOneGroupOut) -> None:
    data = corpus(n_groups=12)
    split = scheme.assign(data)
    alone = scheme.model_copy(update={"held_out": "validation"}).assign(data)
    assert np.array_equal(split.test, alone.validation)
    assert len(split.validation) > 20
    assert not {data.groups[i] for i in split.test} & {data.groups[i] for i in (*split.train, *split.validation)}
    if isinstance(scheme, KFold):
        assert np.array_equal(split.validation, KFold(fold=1).assign(data).validation), "the next one, cyclically"


@pytest.mark.parametrize(
    "scheme", [CrossValidation(test_fold=5), KFold(test_fold=5), LeaveOneGroupOut(test_fold="g3")], ids=str
)
def test_a_fold_kept_for_the_test_validates_in_no_run(scheme: Any) -> None:
    data = corpus(n_groups=12)
    plain = type(scheme)()
    kept = set(plain.folds(data)) - set(scheme.folds(data))
    assert len(kept) == 1
    splits = [scheme.override({"fold": fold}).assign(data) for fold in scheme.folds(data)]
    held_out = plain.override({"fold": kept.pop()}).assign(data).validation
    assert all(split.test.tolist() == held_out.tolist() for split in splits)
    rest = sorted(set(range(len(data))) - set(held_out.tolist()))
    assert sorted(i for split in splits for i in split.validation.tolist()) == rest
    overlap = overlap_of(splits, splits)
    assert (overlap.kind, overlap.n_test) == ("test", len(held_out))
    # Every fold in turn, which is what the kinds with a test fold do, has each clip validate and test.
    turns = [Folds(test_fold=fold).assign(data) for fold in range(1, 6)]
    assert overlap_of(turns, turns) == Overlap(len(data), len(data))
    assert overlap_of(turns[1:2], turns[1:2]).kind == "test"
    assert overlap_of(turns[1:2], turns[:2]).kind == "cross-validation"  # a search on fold 1 validated on fold 2
    # A scheme that keeps no fold is stored as it was before there was one to keep.
    assert "test_fold" not in plain.to_dict()


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        (CrossValidation(fold=2, test_fold=2), "fold=2 validates and data.split.test_fold=2 tests"),
        (CrossValidation(test_fold=9), "no fold 9"),
        (KFold(k=5, test_fold=6), "test_fold=6: there is no such fold. Folds: 1, 2, 3, 4, 5"),
        (KFold(k=2, fold=1, test_fold=2), "nothing is left to train on"),
        (KFold(k=5, test_fold=2, held_out="test"), "set one of them"),
        (LeaveOneGroupOut(test_fold="g33"), "Did you mean"),
        (LeaveOneGroupOut(fold="g3", test_fold="g3"), "they must differ"),
    ],
    ids=str,
)
def test_a_fold_that_cannot_be_kept_for_the_test(scheme: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        scheme.assign(corpus(n_groups=12))


def test_a_group_is_left_out_by_number_or_by_name() -> None:
    data = corpus(n_groups=12)
    names = LeaveOneGroupOut().folds(data)
    assert list(names.values()) == [f"g{i}" for i in range(12)], "g2 before g10"
    by_name, by_number = LeaveOneGroupOut(fold="g10"), LeaveOneGroupOut(fold=11)
    assert by_name.assign(data).digest == by_number.assign(data).digest
    assert by_name.fold_number(data) == 11
    assert SplitScheme.parse(by_name.to_dict()) == by_name


@pytest.mark.parametrize(
    ("scheme", "changes", "said"),
    [
        (KFold(fold=6), {}, "data.split.fold=6: data.split.k=5 folds are numbered 1 to 5"),
        (KFold(k=2, held_out="test"), {}, "3 folds or more"),
        (KFold(k=61), {}, "58 groups, which cannot be divided into data.split.k=61 folds"),
        (LeaveOneGroupOut(fold=61), {}, "has 58 groups, numbered from 1"),
        (LeaveOneGroupOut(fold=10**30), {}, "has 58 groups"),
        (LeaveOneGroupOut(fold="g6x"), {}, r"no such group. Groups: g0, g1, .* and 48 more. Did you mean 'g6"),
        (LeaveOneGroupOut(fold=77), {"groups": ("77",) * 150 + ("78",) * 150}, "fold='\"77\"'"),
        (LeaveOneGroupOut(), {"groups": (None,) * 300}, "names 0 groups"),
        (LeaveOneGroupOut(), {"groups": (None, "a", "b") * 100}, r"100 of 300 clips name no group \('clip0', ...\)"),
        (Folds(test_fold=10**30), {}, "has no fold 1000000"),
        (CrossValidation(fold=-(10**30)), {}, "has no fold -1000000"),
    ],
)
def test_a_fold_that_cannot_be_made(scheme: SplitScheme, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        scheme.assign(corpus(**changes))


def test_groups_are_in_natural_order() -> None:
    names = ["s10", "s2", "s02", "s1", "s", "10", "9", "a" + "9" * 5000, "b1c2"]
    assert sorted(names, key=natural_key) == ["9", "10", "a" + "9" * 5000, "b1c2", "s", "s1", "s02", "s2", "s10"]


@pytest.mark.parametrize("kind", ["official", "folds", "cross_validation"])
def test_groups_may_be_shared_where_that_is_declared(kind: str) -> None:
    groups = tuple(f"g{i // 5 % 10}" for i in range(300))
    splits = tuple(("train", "train", "validation", "test", "train")[i % 5] for i in range(300))
    data = corpus(groups=groups, splits=splits, folds=1 + np.arange(300) % 5)
    with pytest.raises(UserError, match=r"10 groups on two sides of the split.*data.split.allow_shared_groups=true"):
        SplitScheme.parse({"kind": kind}).assign(data)
    split = SplitScheme.parse({"kind": kind, "allow_shared_groups": True}).assign(data)
    shared = shared_groups(data, split)
    assert len(shared) == 10
    assert shared["g0"] == [name for name, side in split.sides().items() if len(side)]
    assert "10 groups stand on more than one side" in shared_groups_text(len(shared))
    assert shared_groups_text(0) == ""


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("folds", "fd6197549886383c9c4f7d629b69046e8d2d14edd1e4fc9184e1db01354798d2"),
        ("cross_validation", "6c428f5337bd30283dae4a50990ae8a80bda96e8ce5091aa92b724e1518e8872"),
        ("official", "d05fad225ecda08b09ee2371fcc1bb4503b2c9edb840ea217342e0f644468ade"),
        ("grouped", "30caf1c551805255e19c5578f346ea6eb228f0ef1d5587db8efdf06239ac0aea"),
    ],
)
def test_recorded_experiments_keep_their_digests(kind: str, digest: str) -> None:
    explicit = Experiment.parse(json.loads(RECORDED)).override({"data.split": kind})
    assert explicit.digest() == digest


def test_cross_validation_has_no_test_set() -> None:
    data = corpus()
    split = CrossValidation(fold=4).assign(data)
    assert set(data.folds[split.validation]) == {4}
    assert len(split.test) == 0


def test_official_keeps_a_published_validation_set() -> None:
    data = corpus()
    splits = tuple(
        "validation" if g in ("g1", "g2", "g7") and s == "train" else s for g, s in zip(data.groups, data.splits)
    )
    split = Official().assign(corpus(splits=splits))
    assert [splits[i] for i in split.validation] == ["validation"] * len(split.validation)
    carved = Official(val_fraction=0.3).assign(data)
    assert {data.splits[i] for i in carved.validation} == {"train"}
    assert {data.splits[i] for i in carved.test} == {"test"}
    assert len(carved.validation) / (len(carved.validation) + len(carved.train)) == pytest.approx(0.3, abs=0.05)


def test_what_is_not_there_is_listed() -> None:
    data = corpus()
    with pytest.raises(UserError, match=r"has no fold 9. Folds: 1, 2, 3, 4, 5"):
        Folds(test_fold=9).assign(data)
    with pytest.raises(UserError, match=r"has no fold 8"):
        Folds(test_fold=1, validation_fold=8).assign(data)
    with pytest.raises(UserError, match="as test and as validation"):
        Folds(test_fold=1, validation_fold=1).assign(data)
    none = corpus(folds=np.full(300, -1), splits=(None,) * 300)
    with pytest.raises(UserError, match=r"Folds: none; use the split 'grouped'"):
        CrossValidation(fold=1).assign(none)
    with pytest.raises(UserError, match=r"names no official split; use 'grouped'"):
        Official().assign(none)
    with pytest.raises(UserError, match="it has folds"):
        Official().assign(corpus(splits=(None,) * 300))
    with pytest.raises(UserError, match=r"the validation side is empty \(train 2\d\d, validation 0"):
        Official(val_fraction=0.0).assign(data)
    with pytest.raises(UserError, match="leave nothing to train on"):
        Grouped(val_fraction=0.5, test_fraction=0.5).assign(data)
    with pytest.raises(UserError, match="a split into three needs 3"):
        Folds(test_fold=1).assign(corpus(folds=1 + np.arange(300) % 2))


def test_leaks_are_refused_by_name() -> None:
    groups = tuple(f"g{i}" for i in range(40)) * 2
    folds = np.repeat([1, 2], 40)
    data = corpus(80, groups=groups, folds=folds)
    with pytest.raises(UserError, match=r"40 groups on two sides.*'g0' \(train and validation\).*and 35 more"):
        CrossValidation(fold=2).assign(data)
    one = corpus(80, groups=(*groups[:79], None), folds=np.r_[np.ones(79), 2].astype(int))
    assert len(CrossValidation(fold=2).assign(one).validation) == 1
    with pytest.raises(UserError, match="clip 'clip1' stands in train and in test"):
        check_leak(data, Split(np.array([0, 1]), np.array([2]), np.array([1])))


@given(
    st.integers(0, 10**6),
    st.integers(2, 6),
    st.booleans(),
    st.sampled_from([(0.8, 0.2), (0.6, 0.2, 0.2), (0.9, 0.1, 0.0)]),
)
@settings(max_examples=40, deadline=None)
def test_stratify_keeps_groups_whole_and_proportions(
    seed: int, n_classes: int, multilabel: bool, p: tuple[float, ...]
) -> None:
    rng = np.random.default_rng(seed)
    n = 400
    if multilabel:
        targets = (rng.uniform(size=(n, n_classes)) < 0.4).astype(np.float32)
    else:
        targets = np.eye(n_classes, dtype=np.float32)[rng.integers(n_classes, size=n)]
    groups = [None if g == 0 else f"g{g}" for g in rng.integers(0, 120, n)]
    side = stratify(targets, groups, p, seed)
    for name in {g for g in groups if g}:
        assert len({int(s) for s, g in zip(side, groups) if g == name}) == 1
    for s, fraction in enumerate(p):
        share = targets[side == s].sum(axis=0) / targets.sum(axis=0)
        assert np.abs(share - fraction).max() < 0.06


def test_stratify_balances_no_worse_than_scikit_learn() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    ours, theirs = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        group = rng.integers(0, 80, 500)
        label = (group + (rng.uniform(size=500) < 0.2) * rng.integers(0, 5, 500)) % 5
        targets = np.eye(5)[label]

        def off(held_out: np.ndarray, targets: np.ndarray = targets) -> float:
            return float(np.abs(targets[held_out].sum(axis=0) / targets.sum(axis=0) - 0.2).mean())

        ours.append(off(stratify(targets, [f"g{g}" for g in group], (0.8, 0.2), seed) == 1))
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        theirs.append(off(next(iter(folds.split(targets, label, group)))[1]))
    assert np.mean(ours) <= np.mean(theirs)


def test_a_class_with_one_group_goes_to_training() -> None:
    targets = np.zeros((100, 2), np.float32)
    targets[:90, 0], targets[90:, 1] = 1, 1
    side = stratify(targets, [f"g{i}" for i in range(90)] + ["rare"] * 10, (0.6, 0.2, 0.2), 0)
    assert set(side[90:]) == {0}
