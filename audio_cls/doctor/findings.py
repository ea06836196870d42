"""What a check says: nothing, or what is wrong, where, and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Check", "Finding", "Skipped", "Wrong", "advice_on", "expect", "first_line", "same", "seeded"]

Check = Callable[[Any], None]
"""Looks at a part, a value of its class; raises `Wrong` for a fault of it, `Skipped` where it does not apply."""


class Wrong(Exception):
    """A fault of a part: what is wrong, and what to do about it."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.what, self.advice = what, advice


class Skipped(Exception):
    """A check that does not apply to a part; the message says why."""


@dataclass(frozen=True)
class Finding:
    """What one check said of one part.

    Attributes:
        part: such as `model tiny`.
        check: such as "gradients".
        status: "ok", "wrong" or "skipped".
        what: is wrong, or why the check was skipped.
        advice: what to do.
        where: file and line, of an error that the part raised; else the file of the part.
    """

    part: str
    check: str
    status: str
    what: str = ""
    advice: str = ""
    where: str = ""


def expect(holds: object, what: str, advice: str) -> None:
    """Raise `Wrong` unless something holds."""
    if not holds:
        raise Wrong(what, advice)


def same(a: Tensor, b: Tensor, tolerance: float = 0.0) -> bool:
    """Return whether two tensors are equal; with a tolerance, close in relation to their largest value."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if tolerance == 0.0:
        return torch.equal(a, b)
    largest = max(1.0, float(a.abs().max())) if a.numel() else 1.0
    difference = float((a - b).abs().max()) if a.numel() else 0.0
    return math.isfinite(difference) and difference <= tolerance * largest


def seeded(*shape: int, seed: int = 0) -> Tensor:
    """Return normal random numbers of a shape, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def first_line(error: BaseException) -> str:
    """Return what an error says in one line, its type first: PyTorch's messages can be pages long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'without a message'}"


_ADVICE = {
    "Can't call numpy()": "compute with torch alone: numpy works on the CPU only, and detach() would cut the gradient",
    "modified by an inplace operation": "replace the operation in place (x += y, x[...] = y, relu_) by one that returns a new tensor",
    "does not require grad": "compute with torch alone: numpy, detach(), .data and torch.no_grad() cut the gradient",
    "view size is not compatible": "use reshape or flatten instead of view",
    "shapes cannot be multiplied": "compute the size of the layer from the input_shape that build is given, not from a fixed number",
    "Expected more than 1 value per channel": "normalise over an axis that has more than one value, for a batch of one clip too",
    "missing 1 required positional argument": "take the arguments that the family's base class names",
    "takes 1 positional argument": "take the arguments that the family's base class names",
    "takes 2 positional arguments": "take the arguments that the family's base class names",
    "takes 3 positional arguments": "take the arguments that the family's base class names",
    "CUDA": "make tensors on the device of the input: torch.zeros(..., device=x.device)",
}


def advice_on(error: BaseException) -> str:
    """Return what to do about an error that a part raised."""
    told = str(error)
    return next(
        (advice for words, advice in _ADVICE.items() if words in told), "mend this line: the same happens in a run"
    )
