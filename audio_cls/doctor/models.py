"""What every model must hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from audio_cls.components.models import Model
from audio_cls.core.config import ConfigError
from audio_cls.doctor.findings import Check, Skipped, Wrong, expect, same, seeded

__all__ = ["CHECKS", "SLOW"]

SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "spectrogram": ((1, 64, 40), (1, 64, 128), (1, 128, 512)),
    "image": ((3, 64, 64), (1, 64, 64), (3, 224, 224)),
    "sequence": ((1, 64, 20), (1, 128, 10)),
    "embedding": ((40,), (128,)),
    "waveform": ((8000,), (16000,), (80000,)),
}
"""Shapes of one clip's features that are tried in turn: a model may refuse some of them."""
BATCH, N_CLASSES = 3, 5
_CLOSE = 1e-4


def _shape(config: Model) -> tuple[int, ...]:
    """Return the first shape of the model's first domain that it takes."""
    domains = config.input_domains
    expect(domains, "input_domains is missing", "say what it takes, such as input_domains = ('spectrogram',)")
    unknown = [domain for domain in domains if domain not in SHAPES]
    expect(not unknown, f"input_domains names {unknown[0] if unknown else ''!r}", f"allowed are {', '.join(SHAPES)}")
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
def _fixed_seed(seed: int = 0) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _built(config: Model, n_classes: int = N_CLASSES, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return a module and a batch that it takes."""
    shape = _shape(config)
    with _fixed_seed(seed):
        module = config.build(shape, n_classes)
    expect(
        isinstance(module, nn.Module), f"build gives a {type(module).__name__}", "return a torch.nn.Module from build"
    )
    return module, seeded(BATCH, *shape)


def check_logits(config: Model) -> None:
    for n_classes in (2, N_CLASSES):
        module, x = _built(config, n_classes)
        for batch in (x, x[:1]):
            given = batch.clone()
            with torch.no_grad():
                out = module.eval()(given)
            wanted = (len(batch), n_classes)
            expect(isinstance(out, Tensor), f"forward gives a {type(out).__name__}", "return logits, one tensor")
            expect(
                tuple(out.shape) == wanted,
                f"forward gives {tuple(out.shape)} for inputs {tuple(batch.shape)} and {n_classes} classes",
                f"return logits (batch, n_classes), here {wanted}; a batch of one clip keeps its first axis",
            )
            expect(out.dtype == torch.float32, f"logits are {out.dtype}", "return float32")
            expect(torch.isfinite(out).all(), "logits are not finite for ordinary inputs", "look for log(0) or 0 / 0")
            expect(torch.equal(given, batch), "forward changes its input", "copy before an operation in place")


def check_gradients(config: Model) -> None:
    if config.closed_form:
        raise Skipped("it is fitted at once, not by gradients")
    module, x = _built(config)
    with _fixed_seed():
        module.train()(x).square().sum().backward()
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    expect(trained, "it has no parameters that are trained", "register layers as attributes of the module")
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


def check_determinism(config: Model) -> None:
    module, x = _built(config)
    again, _ = _built(config)
    for (name, a), b in zip(module.state_dict().items(), again.state_dict().values(), strict=True):
        expect(
            torch.equal(a, b),
            f"two builds with one seed differ in {name}",
            "draw initial weights from PyTorch's global generator (torch.nn.init), not from numpy or random",
        )
    with torch.no_grad():
        first, second = module.eval()(x), module(x)
    expect(
        torch.equal(first, second),
        "two evaluations of one batch differ",
        "use nn.Dropout, or self.training: F.dropout(x) drops in evaluation too",
    )


def check_clips_alone(config: Model) -> None:
    module, x = _built(config)
    with torch.no_grad():
        together = module.eval()(x)
        alone = torch.cat([module(row[None]) for row in x])
    expect(
        same(alone, together, _CLOSE),
        "the logits of a clip depend on the other clips of its batch in evaluation",
        "normalise over the clip's own axes, or with nn.BatchNorm, which keeps statistics of training",
    )


def check_checkpoint(config: Model) -> None:
    module, x = _built(config)
    if not config.closed_form:
        with torch.no_grad(), _fixed_seed():
            module.train()(x)  # moves running statistics
    state = load(save({name: value.contiguous().clone() for name, value in module.state_dict().items()}))
    other, _ = _built(config, seed=1)
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


def check_export(config: Model) -> None:
    module, x = _built(config)
    module.eval()
    try:
        exported = torch.export.export(module, (x,))
    except Exception as error:
        raise Wrong(
            f"torch.export cannot export it: {str(error).strip().splitlines()[0]}",
            "avoid if and for that depend on values of tensors, .item() and numpy in forward",
        ) from None
    with torch.no_grad():
        expect(
            same(exported.module()(x), module(x), _CLOSE), "exported, it gives other logits", "avoid state in forward"
        )


CHECKS: dict[str, Check] = {
    "logits": check_logits,
    "gradients": check_gradients,
    "determinism": check_determinism,
    "clips alone": check_clips_alone,
    "checkpoint": check_checkpoint,
    "refusal of tiny clips": check_refusal,
    "export": check_export,
}
SLOW = frozenset({"export"})
"""Checks of a second or more."""
