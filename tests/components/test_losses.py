"""Losses against PyTorch and the papers' formulas, with soft targets, weights, smoothing and priors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from audio_cls.components.losses import (
    Bce,
    CrossEntropy,
    Focal,
    LogitAdjusted,
    Loss,
    class_weights,
    log_odds,
    log_priors,
    part_shares,
)
from audio_cls.core.config import ConfigError

COUNTS = torch.tensor([800, 364, 800, 800, 800, 818, 311, 822, 764, 800])
N_CLIPS = int(COUNTS.sum())
CASES = [(kind, task) for kind, cls in Loss.members().items() for task in cls.tasks]  # type: ignore[attr-defined]


def make(kind: str, task: str, **fields: object) -> nn.Module:
    """Return a loss; what it has no setting for is left out."""
    fields = {key: value for key, value in fields.items() if key in Loss.members()[kind].model_fields}
    config = Loss.members()[kind].parse(fields)
    assert isinstance(config, Loss)
    return config.build(COUNTS, N_CLIPS, task)


def batch(task: str, n: int = 32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 10, generator=rng) * 3
    if task == "multiclass":
        return logits, torch.eye(10)[torch.randint(10, (n,), generator=rng)]
    return logits, (torch.rand(n, 10, generator=rng) < 0.3).float()


def mixed(y: torch.Tensor) -> torch.Tensor:
    return y * 0.7 + y.roll(1, 0) * 0.3


# -- weights and priors -------------------------------------------------------------------------------------------


def test_inverse_weights_of_published_counts() -> None:
    weights = class_weights(COUNTS, "inverse").numpy()
    published = [0.783, 1.721, 0.783, 0.783, 0.783, 0.766, 2.015, 0.763, 0.820, 0.783]
    np.testing.assert_allclose(weights, published, atol=1e-3)  # theirs for 822 clips is 0.763, by their own rule 0.762
    np.testing.assert_allclose(weights * COUNTS.numpy(), 626.5417, rtol=1e-5)
    assert weights.mean() == pytest.approx(1)


def test_effective_weights_follow_the_paper_and_its_limits() -> None:
    beta = 0.999
    raw = np.array([(1 - beta) / (1 - beta ** int(n)) for n in COUNTS])
    np.testing.assert_allclose(class_weights(COUNTS, "effective", beta).numpy(), raw / raw.mean(), rtol=1e-6)
    inverse = class_weights(COUNTS, "inverse")
    torch.testing.assert_close(class_weights(COUNTS, "effective", 1 - 1e-9), inverse, rtol=1e-4, atol=0)
    torch.testing.assert_close(class_weights(COUNTS, "effective", 1e-6), torch.ones(10), rtol=1e-4, atol=0)


@pytest.mark.parametrize("how", ["none", "inverse", "effective"])
def test_absent_classes_have_a_finite_weight_and_do_not_count_in_the_mean(how: str) -> None:
    counts = torch.tensor([10, 0, 1000, 0, 3])
    weights = class_weights(counts, how)
    assert weights[counts > 0].mean() == pytest.approx(1)
    assert weights[[1, 3]].tolist() == [1, 1]
    assert torch.isfinite(class_weights(torch.zeros(4), how)).all()


@pytest.mark.parametrize("kind", ["cross_entropy", "bce", "focal"])
def test_prior_bias_gives_back_the_priors(kind: str) -> None:
    config = Loss.members()[kind].parse({"prior_bias": True})
    assert isinstance(config, Loss)
    for task in config.tasks:
        bias = config.initial_bias(COUNTS, N_CLIPS, task)
        assert bias is not None
        softmax = task == "multiclass" and kind != "bce"
        found = bias.softmax(0) if softmax else bias.sigmoid()
        torch.testing.assert_close(found, COUNTS / N_CLIPS, rtol=1e-5, atol=0)
        for counts in (torch.tensor([0, 10]), torch.tensor([10, 10])):
            edge = config.initial_bias(counts, 10, task)
            assert edge is not None
            assert torch.isfinite(edge).all()
        off = type(config)()
        assert off.initial_bias(COUNTS, N_CLIPS, task) is None


def test_the_prior_is_the_constant_of_least_loss() -> None:
    for config, task, y in (
        (CrossEntropy(prior_bias=True), "multiclass", torch.eye(10).repeat_interleave(COUNTS, 0)),
        (Bce(prior_bias=True), "multilabel", (torch.arange(N_CLIPS)[:, None] < COUNTS).float()),
    ):
        bias = config.initial_bias(COUNTS, N_CLIPS, task)
        assert bias is not None
        bias.requires_grad_()
        config.build(COUNTS, N_CLIPS, task)(bias.expand(N_CLIPS, 10), y).backward()
        assert bias.grad is not None
        assert bias.grad.abs().max() < 1e-5


# -- parity -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", ["none", "inverse", "effective"])
def test_cross_entropy_equals_torch_at_hard_targets(weights: str, smoothing: float) -> None:
    logits, y = batch("multiclass")
    loss = make("cross_entropy", "multiclass", class_weights=weights, label_smoothing=smoothing)
    reference = nn.CrossEntropyLoss(class_weights(COUNTS, weights), label_smoothing=smoothing)
    torch.testing.assert_close(loss(logits, y), reference(logits, y.argmax(1)))


def test_cross_entropy_equals_torch_at_soft_targets_without_weights() -> None:
    logits, y = batch("multiclass")
    loss = make("cross_entropy", "multiclass", label_smoothing=0.1)
    torch.testing.assert_close(loss(logits, mixed(y)), nn.CrossEntropyLoss(label_smoothing=0.1)(logits, mixed(y)))


def test_weights_of_a_mixed_target_are_the_mixture_of_weights() -> None:
    loss = make("cross_entropy", "multiclass", class_weights="inverse")
    logits = torch.randn(1, 10)
    y = torch.zeros(1, 10)
    y[0, 1], y[0, 6] = 0.7, 0.3
    weights, log_p = class_weights(COUNTS, "inverse"), logits.log_softmax(1)[0]
    expected = -(0.7 * weights[1] * log_p[1] + 0.3 * weights[6] * log_p[6]) / (0.7 * weights[1] + 0.3 * weights[6])
    torch.testing.assert_close(loss(logits, y), expected)


@pytest.mark.parametrize("weights", ["none", "inverse"])
def test_bce_equals_torch_with_weights_on_the_positive_term(weights: str) -> None:
    logits, y = batch("multilabel")
    reference = nn.BCEWithLogitsLoss(pos_weight=class_weights(COUNTS, weights))
    for targets in (y, mixed(y)):
        torch.testing.assert_close(
            make("bce", "multilabel", class_weights=weights)(logits, targets), reference(logits, targets)
        )
    smooth = make("bce", "multilabel", class_weights=weights, label_smoothing=0.1)
    torch.testing.assert_close(smooth(logits, y), reference(logits, y * 0.9 + 0.05))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_sigmoid_focal_equals_the_paper_s_formula(gamma: float, alpha: float | None) -> None:
    logits, y = batch("multilabel")
    p = logits.double().sigmoid()
    p_t = torch.where(y > 0, p, 1 - p)
    weight = 1.0 if alpha is None else torch.where(y > 0, alpha, 1 - alpha)
    expected = (-weight * (1 - p_t) ** gamma * p_t.log()).mean()
    found = make("focal", "multilabel", gamma=gamma, alpha=alpha)(logits, y)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)


def test_softmax_focal_equals_the_paper_s_formula() -> None:
    logits, y = batch("multiclass")
    p_t = (logits.double().softmax(1) * y).sum(1)
    expected = (-((1 - p_t) ** 2) * p_t.log()).mean()
    torch.testing.assert_close(make("focal", "multiclass")(logits, y).double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("task", "plain"), [("multiclass", "cross_entropy"), ("multilabel", "bce")])
def test_focal_with_gamma_0_is_the_plain_loss(task: str, plain: str) -> None:
    logits, y = batch(task)
    for fields in ({}, {"class_weights": "inverse", "label_smoothing": 0.1}):
        focal, reference = make("focal", task, gamma=0.0, **fields), make(plain, task, **fields)
        torch.testing.assert_close(focal(logits, mixed(y)), reference(logits, mixed(y)))


# -- logit adjustment ----------------------------------------------------------------------------------------------


def test_logit_adjustment_of_a_softmax_equals_the_paper_s_formula() -> None:
    """Menon et al., equation 10: log(1 + sum over the others of (p_other / p_own)^tau exp(f_other - f_own))."""
    logits, y = batch("multiclass")
    prior, tau = COUNTS.double() / N_CLIPS, 1.5
    own = y.argmax(1)
    ratio = (prior[None, :] / prior[own][:, None]) ** tau * (logits - logits.gather(1, own[:, None])).double().exp()
    expected = ratio.sum(1).log().mean()  # the sum holds the own class, as 1
    found = make("logit_adjusted", "multiclass", tau=tau)(logits, y)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("task", "plain"), [("multiclass", "cross_entropy"), ("multilabel", "bce")])
def test_logit_adjustment_is_the_plain_loss_of_shifted_logits(task: str, plain: str) -> None:
    logits, y = batch(task)
    shift = log_priors(COUNTS) if task == "multiclass" else log_odds(COUNTS, N_CLIPS)
    for tau in (0.0, 0.7, 1.0):
        found = make("logit_adjusted", task, tau=tau, label_smoothing=0.1)(logits, mixed(y))
        expected = make(plain, task, label_smoothing=0.1)(logits + tau * shift, mixed(y))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_a_model_that_knows_nothing_answers_equal_priors_after_logit_adjustment(task: str) -> None:
    """Trained on the class counts alone, the constant answer of least loss is 0 for every class, whatever the counts."""
    if task == "multiclass":
        y = torch.eye(10).repeat_interleave(COUNTS, 0)
    else:
        y = (torch.arange(N_CLIPS)[:, None] < COUNTS).float()
    constant = torch.zeros(10, requires_grad=True)
    LogitAdjusted().build(COUNTS, N_CLIPS, task)(constant.expand(N_CLIPS, 10), y).backward()
    assert constant.grad is not None
    assert constant.grad.abs().max() < 1e-5
    assert LogitAdjusted().initial_bias(COUNTS, N_CLIPS, task) is None


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_parts_of_a_batch_add_up_to_its_logit_adjusted_loss(task: str) -> None:
    logits, y = batch(task)
    loss = make("logit_adjusted", task)
    parts = list(zip(logits.split(20), y.split(20), strict=True))
    shares = part_shares(loss, [part for _, part in parts])
    together = sum(share * loss(x, part) for share, (x, part) in zip(shares, parts, strict=True))
    torch.testing.assert_close(together, loss(logits, y))


# -- contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["none", "inverse", "effective"])
@pytest.mark.parametrize(("kind", "task"), CASES)
def test_a_soft_target_has_the_loss_of_its_mixture(kind: str, task: str, weights: str) -> None:
    """For one clip without weights (or where they do not change the mean) the loss is linear in the target."""
    logits, y = batch(task, 1)
    other = batch(task, 1, seed=9)[1]
    loss = make(kind, task, class_weights=weights)
    at = loss(logits, 0.6 * y + 0.4 * other)
    if task == "multiclass" and kind != "bce":
        w = class_weights(COUNTS, weights if kind != "logit_adjusted" else "none")
        a, b = 0.6 * (w * y).sum(), 0.4 * (w * other).sum()
        expected = (a * loss(logits, y) + b * loss(logits, other)) / (a + b)
    else:
        expected = 0.6 * loss(logits, y) + 0.4 * loss(logits, other)
    torch.testing.assert_close(at, expected)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
@pytest.mark.parametrize(("kind", "task"), CASES)
def test_extreme_logits_stay_finite_with_their_gradient(kind: str, task: str, gamma: float) -> None:
    fields: dict[str, object] = {"label_smoothing": 0.1, "class_weights": "inverse"}
    if kind == "focal":
        fields["gamma"] = gamma
    for smoothing in (0.0, 0.1):
        loss = make(kind, task, **{**fields, "label_smoothing": smoothing})
        logits = torch.zeros(3, 10)
        logits[0, 0], logits[1, 0], logits[2] = 300.0, -300.0, 80.0
        logits.requires_grad_()
        value = loss(logits, torch.eye(10)[[0, 0, 1]])
        value.backward()
        assert torch.isfinite(value)
        assert value >= 0
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_half_precision_logits_are_summed_in_float32(kind: str, task: str) -> None:
    logits, y = batch(task)
    loss = make(kind, task)
    out = loss(logits.bfloat16(), y)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, loss(logits.bfloat16().float(), y))


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_a_gradient_step_lowers_the_loss_and_the_state_is_empty(kind: str, task: str) -> None:
    logits, y = batch(task)
    loss = make(kind, task, class_weights="inverse")
    logits.requires_grad_()
    before = loss(logits, y)
    before.backward()
    assert logits.grad is not None
    assert loss(logits.detach() - 0.5 * logits.grad, y) < before
    assert not loss.state_dict()


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_other_shapes_are_refused(kind: str, task: str) -> None:
    with pytest.raises(ValueError, match="n_classes"):
        make(kind, task)(torch.zeros(4, 10), torch.zeros(4, dtype=torch.long))


def test_a_loss_for_another_task_is_refused_with_the_alternatives() -> None:
    with pytest.raises(ConfigError, match="Allowed: bce, focal, logit_adjusted"):
        CrossEntropy().build(COUNTS, N_CLIPS, "multilabel")
    with pytest.raises(ConfigError, match="cross_entropy"):
        CrossEntropy(prior_bias=True).initial_bias(COUNTS, N_CLIPS, "multilabel")
    with pytest.raises(ConfigError, match="Did you mean 'multilabel'"):
        Bce().build(COUNTS, N_CLIPS, "multi-label")
    with pytest.raises(ConfigError, match="alpha"):
        Focal(alpha=0.25).build(COUNTS, N_CLIPS, "multiclass")


def test_bce_takes_a_multiclass_task_each_class_against_the_rest() -> None:
    logits, y = batch("multiclass")
    torch.testing.assert_close(make("bce", "multiclass")(logits, y), F.binary_cross_entropy_with_logits(logits, y))
