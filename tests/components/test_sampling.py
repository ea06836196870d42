"""Samplers: one contract for every registered kind, then what each of them promises."""

from __future__ import annotations

import numpy as np
import pytest

from audio_cls.components.sampling import Balanced, RarestLabel, RepeatFactor, Sampling, Uniform, repeat_factors
from audio_cls.core.config import ConfigError

KINDS = sorted(Sampling.members())


def one_label(counts: list[int]) -> np.ndarray:
    return np.eye(len(counts), dtype=np.float32)[np.repeat(np.arange(len(counts)), counts)]


def several_labels(n: int = 400, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((n, 5)) < [0.5, 0.3, 0.1, 0.03, 0.0]).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "targets", [one_label([50, 20, 5]), several_labels(), one_label([1]), np.zeros((4, 3), np.float32)]
)
def test_orders_are_rows_and_depend_on_seed_and_epoch_only(kind: str, targets: np.ndarray) -> None:
    config = Sampling.members()[kind]()
    assert isinstance(config, Sampling)
    before = targets.copy()
    order = config.build(targets)
    first = order(3, 7)
    assert first.dtype == np.int64
    assert first.min() >= 0
    assert first.max() < len(targets)
    np.random.seed(0)
    order(3, 8)  # what came before does not matter
    np.testing.assert_array_equal(order(3, 7), first)
    np.testing.assert_array_equal(config.build(targets)(3, 7), first)
    np.testing.assert_array_equal(targets, before)
    if len(targets) > 10:
        assert not np.array_equal(order(3, 8), first)
        assert not np.array_equal(order(4, 7), first)


@pytest.mark.parametrize("kind", KINDS)
def test_no_clips_is_refused(kind: str) -> None:
    config = Sampling.members()[kind]()
    assert isinstance(config, Sampling)
    with pytest.raises(ConfigError, match="nothing to sample"):
        config.build(np.zeros((0, 3)))


def test_uniform_is_a_permutation_in_random_order() -> None:
    order = Uniform().build(one_label([30, 70]))
    np.testing.assert_array_equal(np.sort(order(0, 0)), np.arange(100))
    firsts = {int(order(0, epoch)[0]) for epoch in range(50)}
    assert len(firsts) > 20


def test_balanced_gives_each_class_its_share_in_an_epoch_as_long_as_the_data() -> None:
    targets = one_label([800, 150, 40, 11])
    order = Balanced().build(targets)
    seen = np.zeros(len(targets), dtype=int)
    for epoch in range(4):
        rows = order(0, epoch)
        assert len(rows) == 1001
        per_class = targets[rows].sum(0)
        assert per_class.min() >= 250
        assert per_class.max() <= 251
        times = np.bincount(rows, minlength=len(targets))
        assert times[:800].max() == 1, "a clip of a large class at most once"
        assert times[990:].max() - times[990:].min() <= 1, "clips of a small class equally often"
        seen += times
    assert (seen[:800] > 0).mean() > 0.7, "over the epochs the large class is seen"
    rows = order(0, 0)
    assert len(np.unique(targets[rows[:50]].argmax(1))) == 4, "classes are mixed within the epoch"


def test_balanced_with_several_labels_keeps_clips_without_any() -> None:
    targets = several_labels(1000)
    unlabelled = targets.sum(1) == 0
    rows = Balanced().build(targets)(0, 0)
    assert len(rows) == 1000
    share = targets[rows].mean(0)
    assert (share[:4] >= 1 / 5 - 1e-9).all(), "four classes present and the clips without any"
    assert share[4] == 0
    assert unlabelled[rows].mean() == pytest.approx(1 / 5, abs=0.002)


def test_repeat_factors_follow_the_definition() -> None:
    labels = np.zeros((1000, 4), dtype=bool)
    labels[:, 0] = True
    labels[:90, 1] = True
    labels[:10, 2] = True
    factors = repeat_factors(labels, 0.1)
    np.testing.assert_allclose(factors[:10], np.sqrt(0.1 / 0.01))
    np.testing.assert_allclose(factors[10:90], np.sqrt(0.1 / 0.09))
    np.testing.assert_allclose(factors[90:], 1)
    assert repeat_factors(np.zeros((3, 2), dtype=bool), 0.5).tolist() == [1, 1, 1]


def test_repeats_are_rounded_at_random_and_right_on_average() -> None:
    targets = one_label([900, 60, 40])
    order = RepeatFactor(threshold=0.25).build(targets)
    times = np.stack([np.bincount(order(0, epoch), minlength=1000) for epoch in range(300)])
    factors = repeat_factors(targets, 0.25)
    assert (times >= np.floor(factors)).all()
    assert (times <= np.ceil(factors)).all()
    np.testing.assert_allclose(times[:, 900:].mean(0), factors[900:], atol=0.12)
    np.testing.assert_allclose(times[:, 900:].mean(), factors[900:].mean(), atol=0.01)
    assert len(order(0, 0)) > 1000


def test_the_default_threshold_is_an_equal_share() -> None:
    even = one_label([20, 20, 20, 20])
    assert len(RepeatFactor().build(even)(0, 0)) == 80
    uneven = one_label([60, 20, 15, 5])
    assert np.bincount(RepeatFactor().build(uneven)(0, 0), minlength=100)[95:].min() >= 2


def test_rarest_label_draws_each_clip_by_its_rarest_label_with_replacement() -> None:
    targets = np.array([[1, 0, 0]] * 60 + [[1, 1, 0]] * 30 + [[1, 1, 1]] * 5 + [[0, 0, 0]] * 5)
    weights = np.array(
        [1 / 95] * 60 + [1 / 35] * 30 + [1 / 5] * 5 + [1 / 5] * 5
    )  # clips without a label are one class more
    order = RarestLabel().build(targets)
    times = np.zeros(100)
    for epoch in range(400):
        rows = order(0, epoch)
        assert len(rows) == 100
        times += np.bincount(rows, minlength=100)
    kinds = np.split(times / 400, [60, 90, 95])
    for found, expected in zip(kinds, np.split(100 * weights / weights.sum(), [60, 90, 95]), strict=True):
        assert found.mean() == pytest.approx(expected[0], rel=0.05)
    assert np.bincount(order(0, 0), minlength=100).max() > 1
    even = RarestLabel().build(one_label([80, 15, 5]))
    shares = np.mean([one_label([80, 15, 5])[even(1, epoch)].mean(0) for epoch in range(200)], axis=0)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)
