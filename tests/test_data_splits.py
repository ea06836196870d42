"""Split schemes: a contract for each kind, proportions against scikit-learn, and leaks refused by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_cls.data.corpus import Corpus
from audio_cls.data.splits import CrossValidation, Folds, Grouped, Official, Split, SplitScheme, check_leak, stratify
from audio_cls.errors import UserError


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
        "splits": tuple("test" if g % 5 == 0 else "train" for g in group),
        "ids": tuple(f"clip{i}" for i in range(n)),
    }
    return cast(Corpus, _Sized(**{**fields, **changes}))


class _Sized(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.targets)


@pytest.mark.parametrize("kind", SplitScheme.members())
@pytest.mark.parametrize("multilabel", [False, True])
def test_contract_of_every_scheme(kind: str, multilabel: bool) -> None:
    data, scheme = corpus(multilabel=multilabel), SplitScheme.parse({"kind": kind})
    split, again = scheme.assign(data), scheme.assign(data)
    together = np.concatenate(list(split.sides().values()))
    assert len(np.unique(together)) == len(together) == len(data)
    assert len(split.train) > len(split.validation) > 0
    for side in split.sides().values():
        assert side.dtype == np.int64
        assert np.array_equal(side, np.sort(side))
    assert split.digest == again.digest
    check_leak(data, split)
    other = SplitScheme.parse({"kind": kind, **({"fold": 2} if kind == "cross_validation" else {"test_fold": 2} if kind == "folds" else {"seed": 1})})  # fmt: skip
    assert other.assign(data).digest != split.digest
    assert scheme.assign(corpus(multilabel=multilabel, digest="e")).digest != split.digest


def test_folds_take_the_next_fold_to_validate() -> None:
    data = corpus()
    for k in range(1, 6):
        split = Folds(test_fold=k).assign(data)
        assert set(data.folds[split.test]) == {k}
        assert set(data.folds[split.validation]) == {k % 5 + 1}
        assert set(data.folds[split.train]) == set(range(1, 6)) - {k, k % 5 + 1}
    assert set(data.folds[Folds(test_fold=2, validation_fold=5).assign(data).validation]) == {5}


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
