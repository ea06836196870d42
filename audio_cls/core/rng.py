"""Random generators that depend on the place in a run (seed, epoch, step), not on what was drawn before.

Every random draw of a run is a function of (seed, path), where the path names the purpose and the place: `("order", epoch)`,
`("augment", epoch, step)`. A run resumed in the middle therefore draws what the uninterrupted run would have drawn.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["CONFIRMATION_SEED", "TUNING_OFFSET", "derive", "generator", "numpy_rng"]

CONFIRMATION_SEED = 10_000  # the first seed of confirmations: no search uses seeds that high
TUNING_OFFSET = 1_000  # added to the last seed of a grid for the searches that tune its arms


def derive(seed: int, *path: int | str) -> int:
    """Return a 63-bit seed from (seed, path): equal paths give equal seeds, different paths independent ones."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else int(part) for part in path]
    state = np.random.SeedSequence([int(seed), *words]).generate_state(2, np.uint32)
    return (int(state[0]) << 31) ^ int(state[1])


def generator(seed: int, *path: int | str) -> torch.Generator:
    """Return a CPU `torch.Generator` for (seed, path)."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *path))


def numpy_rng(seed: int, *path: int | str) -> np.random.Generator:
    """Return a NumPy generator for (seed, path)."""
    return np.random.default_rng(derive(seed, *path))
