"""The blocks of a model: which are frozen, and how fast the others learn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from audio_cls.components.weights.base import FileWeights, Weights
from audio_cls.core.config import ConfigError

__all__ = ["Block", "blocks_of", "frozen_modules", "parameters_to_train"]

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.TransformerEncoder)
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass
class Block:
    """One layer of a model with the normalisation that follows it. `names` are those of its parameters and buffers."""

    name: str
    modules: list[nn.Module] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def blocks_of(model: nn.Module) -> list[Block]:
    """Return the blocks of a model in the order in which it registers its layers; the last one is the head.

    A block is a child of the model that has weights. Sequences and lists of layers are taken apart; a normalisation belongs to the
    layer before it, and one that comes first to the layer after it. Parameters of the model itself (a class token, positions)
    belong to the first block.
    """
    blocks: list[Block] = []
    leading: list[tuple[str, nn.Module]] = []
    for name, module in _units(model):
        if isinstance(module, NORMS) and blocks:
            _join(blocks[-1], name, module)
        elif isinstance(module, NORMS):
            leading.append((name, module))
        else:
            blocks.append(Block(name))
            for part in (*leading, (name, module)):
                _join(blocks[-1], *part)
            leading = []
    if not blocks:
        blocks = [Block("model", [model], [])]
    known = {name for block in blocks for name in block.names}
    blocks[0].names = [name for name in model.state_dict() if name not in known] + blocks[0].names
    return blocks


def _units(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if not child.state_dict():
            continue
        if isinstance(child, CONTAINERS):
            yield from _units(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _join(block: Block, name: str, module: nn.Module) -> None:
    block.modules.append(module)
    block.names += [f"{name}.{inner}" for inner in module.state_dict()]


def frozen_modules(model: nn.Module, weights: Weights) -> list[nn.Module]:
    """Take the gradient from the parameters of the frozen blocks. Returns the modules to be kept in evaluation mode.

    Raises:
        ConfigError: for more blocks than the backbone has.
    """
    if not isinstance(weights, FileWeights) or weights.frozen == 0:
        return []
    blocks = blocks_of(model)
    most = len(blocks) - 1
    n = most if weights.frozen == "all" else int(weights.frozen)
    if n > most:
        raise ConfigError(
            f"model.weights.frozen={n}: the model has {most} blocks and a head: at most {most}. Blocks: "
            f"{', '.join(block.name for block in blocks)}"
        )
    names = {name for block in blocks[:n] for name in block.names}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in names:
            parameter.requires_grad_(False)
    return [module for block in blocks[:n] for module in block.modules]


def learning_rate_factors(blocks: list[Block], weights: Weights) -> list[float]:
    """Return each block's learning rate as a factor of the head's, the last one's; 0 for frozen blocks."""
    if not isinstance(weights, FileWeights):
        return [1.0] * len(blocks)
    last = len(blocks) - 1
    n = last if weights.frozen == "all" else int(weights.frozen)
    factors = [weights.lr_factor * weights.lr_decay ** (last - i) for i in range(last)]
    return [0.0 if i < n else factor for i, factor in enumerate(factors)] + [1.0]


def parameters_to_train(
    module: nn.Module, model: nn.Module, weights: Weights
) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
    """Return what an optimiser is built with: parameters, or groups of them that learn at rates of their own.

    A group holds `params` and `lr_factor`, by which the training loop multiplies the scheduled learning rate.

    Args:
        module: what is trained; `model` is a part of it, with the blocks.
    """
    if not isinstance(weights, FileWeights):
        return module.parameters()
    trained = [p for p in module.parameters() if p.requires_grad]
    blocks = blocks_of(model)
    factors = learning_rate_factors(blocks, weights)
    if all(factor in (0.0, 1.0) for factor in factors):
        return trained
    named = dict(model.named_parameters(remove_duplicate=False))
    factor_of: dict[int, float] = {}
    for block, factor in zip(blocks, factors, strict=True):
        for name in block.names:
            if name in named:
                factor_of.setdefault(id(named[name]), factor)
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in trained:
        groups.setdefault(factor_of.get(id(parameter), 1.0), []).append(parameter)
    return [{"params": parameters, "lr_factor": factor} for factor, parameters in groups.items()]
