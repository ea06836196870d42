"""What every model must hold."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from audio_cls.components.models import Model
from audio_cls.core.config import ConfigError
from audio_cls.core.errors import choices
from audio_cls.doctor.findings import Check, Skipped, Wrong, expect, first_line, same, seeded

__all__ = ["AFTER", "CHECKS", "SHAPES", "built", "fixed_seed"]

SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "spectrogram": ((1, 64, 40), (1, 64, 128), (1, 128, 512)),
    "image": ((3, 64, 64), (1, 64, 64), (3, 224, 224)),
    "sequence": ((1, 64, 20), (1, 128, 10)),
    "embedding": ((40,), (128,)),
    "waveform": ((8000,), (16000,), (80000,)),
}
"""Shapes of one clip's features that are tried in turn: a model may refuse some of them."""
BATCH, N_CLASSES = 3, 5
_SEEDS = 4  # of initial weights, all of which must look alike before outputs are called probabilities
_CLOSE = 1e-4


def _shape(config: Model) -> tuple[int, ...]:
    """Return the first shape of the model's first domain that it takes."""
    domains = config.input_domains
    expect(domains, "input_domains is missing", "say what it takes, such as input_domains = ('spectrogram',)")
    unknown = [domain for domain in domains if domain not in SHAPES]
    if unknown:
        raise Wrong(f"input_domains names {unknown[0]!r}", choices(unknown[0], SHAPES))
    refusals = []
    for shape in SHAPES[domains[0]]:
        try:
            config.build(shape, N_CLASSES)
            return shape
        except ConfigError as error:
            refusals.append(str(error))
    raise Wrong(
        f"it refuses every {domains[0]} that was tried ({', '.join(map(str, SHAPES[domains[0]]))}): {refusals[-1]}",
        "take one of them, or name another domain in input_domains",
    )


@contextlib.contextmanager
def fixed_seed(seed: int = 0) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def built(config: Model, n_classes: int = N_CLASSES, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return a module and a batch that it takes."""
    shape = _shape(config)
    with fixed_seed(seed):
        module = config.build(shape, n_classes)
    expect(
        isinstance(module, nn.Module), f"build gives a {type(module).__name__}", "return a torch.nn.Module from build"
    )
    return module, seeded(BATCH, *shape)


def check_logits(config: Model) -> None:
    for n_classes in (2, N_CLASSES):
        module, x = built(config, n_classes)
        for batch in (x, x[:1]):
            given = batch.clone()
            with torch.no_grad():
                out = module.eval()(given)
            wanted = (len(batch), n_classes)
            expect(isinstance(out, Tensor), f"forward gives a {type(out).__name__}", "return logits, one tensor")
            expect(
                tuple(out.shape) == wanted,
                f"forward gives {tuple(out.shape)} for inputs {tuple(batch.shape)} and {n_classes} classes",
                f"return logits (batch, n_classes), here {wanted}; a batch of one clip keeps its first axis (squeeze() takes it away)",
            )
            expect(out.dtype == torch.float32, f"logits are {out.dtype}", "return float32")
            expect(torch.isfinite(out).all(), "logits are not finite for ordinary inputs", "look for log(0) or 0 / 0")
            expect(torch.equal(given, batch), "forward changes its input", "copy before an operation in place")
    squashed = _squashed(config, 0)
    expect(
        not squashed or any(_squashed(config, seed) != squashed for seed in range(1, _SEEDS)),
        f"forward gives {squashed}, not logits",
        "return what the last linear layer gives: losses and evaluation apply softmax or sigmoid themselves",
    )


def _squashed(config: Model, seed: int) -> str:
    """Return what has been made of the outputs where they are probabilities, to which losses and evaluation apply a softmax or a sigmoid
    again; empty where they look like logits."""
    module, x = built(config, seed=seed)
    with torch.no_grad():
        out = module.eval()(torch.cat([x, 10 * x]))
    ones = torch.ones(len(out))
    if bool((out >= 0).all()) and torch.allclose(out.sum(1), ones, atol=1e-4):
        return "probabilities, which sum to 1 in each clip (a softmax)"
    if bool(((out >= 0) & (out <= 1)).all()) and bool((out > 0).any()):
        return "values between 0 and 1 only (a sigmoid)"
    if torch.allclose(out.exp().sum(1), ones, atol=1e-4):
        return "logarithms of probabilities (log_softmax)"
    return ""


def check_gradients(config: Model) -> None:
    if config.closed_form:
        raise Skipped("it is fitted at once, not by gradients")
    module, x = built(config)
    with fixed_seed():
        out = module.train()(x)
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    expect(trained, "it has no parameters that are trained", "register layers as attributes of the module")
    expect(
        out.requires_grad,
        "no gradient reaches any parameter",
        "compute in forward with torch alone: numpy, detach(), .data and torch.no_grad() cut the gradient",
    )
    out.square().sum().backward()
    for name, parameter in trained:
        expect(
            parameter.grad is not None,
            f"the parameter {name} gets no gradient",
            "use it in forward, or take it out: it would never be trained; a detach() or torch.no_grad() cuts gradients",
        )
        expect(
            parameter.grad is not None and torch.isfinite(parameter.grad).all(),
            f"the gradient of {name} is not finite",
            "look for sqrt(0), log(0) or 0 / 0",
        )


def check_training_forms(config: Model) -> None:
    """Training may keep weights in the memory format `channels_last`, and computes in bfloat16 where the machine has it."""
    if config.closed_form:
        raise Skipped("it is fitted at once, not by gradients")
    module, x = built(config)
    with torch.no_grad():
        plain = module.eval()(x)
        try:
            other = module.to(memory_format=torch.channels_last)(x)
        except Exception as error:
            raise Wrong(
                f"with weights in the memory format channels_last, as training keeps them, forward fails: {first_line(error)}",
                "use flatten or reshape instead of view",
            ) from None
        expect(
            same(other, plain, _CLOSE),
            "with weights in the memory format channels_last, as training keeps them, it gives other logits",
            "do not depend on strides or on the order of values in memory",
        )
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                half = module(x)
        except Exception as error:
            raise Wrong(
                f"in bfloat16 (torch.autocast), as training computes where the machine can, forward fails: {first_line(error)}",
                "bring tensors of your own to the type of what they meet: value.to(x.dtype)",
            ) from None
        expect(
            torch.isfinite(half).all(),
            "in bfloat16 (torch.autocast), as training computes where the machine can, logits are not finite",
            "compute sums of many values and logarithms with .float()",
        )


def check_determinism(config: Model) -> None:
    module, x = built(config)
    again, _ = built(config)
    for (name, a), b in zip(module.state_dict().items(), again.state_dict().values(), strict=True):
        expect(
            torch.equal(a, b),
            f"two builds with one seed differ in {name}",
            "draw initial weights from PyTorch's global generator (torch.nn.init), not from numpy or random",
        )
    fresh = _copied(module)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        first, second = module.eval()(x), module(x)
        if not torch.equal(first, second):
            with fixed_seed():
                third = module(x)
            with fixed_seed():
                random = torch.equal(module(x), third)
            expect(
                not random,
                "two evaluations of one batch differ: it draws random numbers",
                "use nn.Dropout, or self.training: F.dropout(x) drops in evaluation too",
            )
            raise Wrong(
                "two evaluations of one batch differ, with one random seed too",
                "keep nothing from one call to the next (counters, caches, hidden states on self), and draw nothing from numpy or random",
            )
        after_another = first
        if fresh is not None:
            fresh.eval()(x.flip(0) * 3 + 1)
            after_another = fresh(x)
    expect(
        torch.equal(first, after_another),
        "its answer to a batch depends on the batch before: it keeps something between calls",
        "start each call anew: no hidden states, running values or caches on self in evaluation",
    )
    changed = [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
    expect(not changed, f"evaluation changes its {', '.join(changed)}", "change buffers if self.training only")


def _copied(module: nn.Module) -> nn.Module | None:
    """Return a copy, None of a module that cannot be copied (one that keeps computed tensors)."""
    try:
        return copy.deepcopy(module)
    except RuntimeError:
        return None


def check_clips_alone(config: Model) -> None:
    module, x = built(config)
    with torch.no_grad():
        together = module.eval()(x)
        alone = torch.cat([module(row[None]) for row in x])
    expect(
        same(alone, together, _CLOSE),
        "the logits of a clip depend on the other clips of its batch in evaluation",
        "normalise over the clip's own axes, or with nn.BatchNorm, which keeps statistics of training",
    )


def check_checkpoint(config: Model) -> None:
    module, x = built(config)
    if not config.closed_form:
        with torch.no_grad(), fixed_seed():
            module.train()(x)  # moves running statistics
    state = load(save({name: value.contiguous().clone() for name, value in module.state_dict().items()}))
    other, _ = built(config, seed=1)
    other.load_state_dict(state)
    with torch.no_grad():
        expect(
            torch.equal(other.eval()(x), module.eval()(x)),
            "saved and loaded, it gives other logits",
            "keep all that forward uses in parameters or in buffers (self.register_buffer), nothing in plain attributes",
        )


def check_refusal(config: Model) -> None:
    """For clips that are far too small `build` works, or refuses them as a configuration."""
    shape = (1,) * len(_shape(config))
    try:
        config.build(shape, N_CLASSES)
    except ConfigError:
        return
    except Exception as error:
        raise Wrong(
            f"build raises {type(error).__name__} for clips of shape {shape}: {' '.join(str(error).split())[:200]}",
            "raise audio_cls.ConfigError in build and say what it needs (components.models.base.refuse_shape)",
        ) from None


CHECKS: dict[str, Check] = {
    "logits": check_logits,
    "gradients": check_gradients,
    "determinism": check_determinism,
    "training": check_training_forms,
    "clips alone": check_clips_alone,
    "checkpoint": check_checkpoint,
    "refusal of tiny clips": check_refusal,
}
AFTER: dict[str, tuple[str, ...]] = {
    "gradients": ("logits",),
    "determinism": ("logits",),
    "training": ("gradients", "determinism"),
    "clips alone": ("determinism",),
    "checkpoint": ("determinism",),
    "export": ("determinism",),
    "onnx": ("determinism",),
}
"""Checks that tell nothing before others pass: they would report the same fault in other words."""
