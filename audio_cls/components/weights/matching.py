"""Put the tensors of a file into a model: matched by name and shape, told as a table, refused where too little fits."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from audio_cls.components.weights.base import FileWeights
from audio_cls.components.weights.blocks import blocks_of, learning_rate_factors
from audio_cls.core.config import ConfigError

__all__ = ["LEAST", "Match", "Row", "load_weights"]

LEAST = 0.9
"""Share of the backbone that must be found in a file."""

Status = Literal["matched", "first layer", "new head", "shaped otherwise", "missing", "unexpected", "ignored"]
COUNTER = "num_batches_tracked"  # of batch norms: counted, not learned


@dataclass(frozen=True)
class Row:
    """One tensor: its names in the model and in the file (empty where it is not there), with the shapes."""

    status: Status
    name: str
    in_file: str
    shape: tuple[int, ...]
    shape_in_file: tuple[int, ...]
    block: str = ""
    lr_factor: float = 1.0

    @property
    def n_values(self) -> int:
        return torch.Size(self.shape if self.name else self.shape_in_file).numel()


@dataclass(frozen=True)
class Match:
    """How a file fits a model. `share`: of the backbone that was found, the smaller one of tensors and values."""

    rows: tuple[Row, ...]
    share: float
    n_blocks: int
    frozen: tuple[str, ...]
    lowest_factor: float

    def lines(self) -> list[str]:
        """Return the table for people, a line for each status that occurs."""
        lines = [f"{'':<17}{'tensors':>8}{'values':>12}  for example"]
        for status in dict.fromkeys(row.status for row in sorted(self.rows, key=_order)):
            of = [row for row in self.rows if row.status == status]
            lines.append(f"{status:<17}{len(of):>8}{sum(row.n_values for row in of):>12,}  {_example(of[0])}")
        lines.append(f"found {self.share:.1%} of the backbone; {self.training}")
        return lines

    @property
    def training(self) -> str:
        """In words, what of the model is trained, and how fast."""
        count = f"{len(self.frozen)} of {self.n_blocks} blocks frozen"
        words = [f"{count} ({self.frozen[0]} to {self.frozen[-1]})" if self.frozen else "all blocks trained"]
        if 0 < self.lowest_factor < 1:
            words.append(
                f"learning rates from x {self.lowest_factor:.3g} at the first trained block to x 1 at the head"
            )
        return ", ".join(words)

    def csv(self) -> str:
        """Return all rows as a table."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["status", "name", "name_in_file", "shape", "shape_in_file", "block", "lr_factor"])
        for row in sorted(self.rows, key=_order):
            shapes = ["x".join(map(str, shape)) for shape in (row.shape, row.shape_in_file)]
            writer.writerow([row.status, row.name, row.in_file, *shapes, row.block, f"{row.lr_factor:g}"])
        return out.getvalue()

    def params(self) -> dict[str, str]:
        """Return what a run records: counts of tensors by status, and the share."""
        counts = {s: sum(row.status == s for row in self.rows) for s in ("matched", "shaped otherwise", "missing")}
        out = {f"weights.{status.replace(' ', '_')}": str(n) for status, n in counts.items()}
        return {**out, "weights.backbone_found": f"{self.share:.4f}"}


def load_weights(model: nn.Module, weights: FileWeights, tensors: Mapping[str, Tensor], where: str) -> Match:
    """Copy the tensors of a file into a model, as the settings say.

    Args:
        where: what the file is called in messages.

    Raises:
        ConfigError: when less than 90 % of the backbone is found, when a frozen block is not found whole, when the first layer
            takes other channels and `first_layer` is "refuse", or when the head is to be loaded and does not fit; the model is then
            as it was.
    """
    own = model.state_dict()
    blocks = blocks_of(model)
    factors = learning_rate_factors(blocks, weights)
    block_of = {name: i for i, block in reversed(list(enumerate(blocks))) for name in block.names}
    found, rows = _named(weights, tensors, where)
    head = len(blocks) - 1
    new: dict[str, Tensor] = {}
    first = next((name for name, value in own.items() if value.ndim > 2 and name.endswith("weight")), "")
    for name, value in own.items():
        i = block_of[name]
        in_file, given = found.pop(name, ("", None))
        status, taken = _placed(value, given, weights, name == first)
        if i == head and weights.head == "new":
            status, taken = "new head", None
        if taken is not None:
            new[name] = taken
        shape_in_file = tuple(given.shape) if given is not None else ()
        rows.append(Row(status, name, in_file, tuple(value.shape), shape_in_file, blocks[i].name, factors[i]))
    rows += [Row("unexpected", "", in_file, (), tuple(given.shape)) for in_file, given in found.values()]
    share = _share([row for row in rows if row.name and block_of[row.name] != head])
    frozen = tuple(block.name for block, factor in zip(blocks, factors, strict=True) if factor == 0)
    match = Match(tuple(rows), share, len(blocks), frozen, min((f for f in factors if f), default=1.0))
    _check(match, weights, where, blocks[head].name)
    model.load_state_dict({**own, **new})
    return match


def _named(
    weights: FileWeights, tensors: Mapping[str, Tensor], where: str
) -> tuple[dict[str, tuple[str, Tensor]], list[Row]]:
    """Return the tensors by their names in our model, with those in the file; and rows for what is ignored."""
    names = weights.names(tensors.keys())
    found: dict[str, tuple[str, Tensor]] = {}
    for in_file, name in names.items():
        if name in found:
            raise ConfigError(
                f"{where}: {found[name][0]} and {in_file} are both {name} by model.weights={weights.kind}"
            )
        found[name] = in_file, tensors[in_file]
    left_out = [key for key in tensors if key not in names]
    return found, [Row("ignored", "", key, (), tuple(tensors[key].shape)) for key in left_out]


def _placed(value: Tensor, given: Tensor | None, weights: FileWeights, is_first: bool) -> tuple[Status, Tensor | None]:
    """Return how a tensor of the model is filled, and with what."""
    if given is None:
        return "missing", None
    if given.shape == value.shape:
        return "matched", given.to(value.dtype)
    if is_first and weights.first_layer != "refuse" and _differs_in_channels(value.shape, given.shape):
        return "first layer", _other_channels(given.to(value.dtype), value.shape[1], weights.first_layer)
    return "shaped otherwise", None


def _differs_in_channels(shape: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Whether the shapes of two kernels (out, in, ...) differ in their input channels only."""
    return len(shape) == len(given) > 2 and shape[0] == given[0] and shape[2:] == given[2:] and given[1] > 0


def _other_channels(kernel: Tensor, channels: int, how: str) -> Tensor:
    """Return a kernel (out, in, ...) for another number of input channels.

    With "sum" each channel gets the sum over channels divided by their new number, so that equal channels give the answer that
    they gave before; "mean" gives each the mean; "repeat" takes the channels in turn, scaled by old / new.
    """
    before = kernel.shape[1]
    if how == "repeat":
        return kernel[:, [i % before for i in range(channels)]] * (before / channels)
    merged = kernel.sum(1, keepdim=True) / channels if how == "sum" else kernel.mean(1, keepdim=True)
    return merged.repeat_interleave(channels, 1)


def _share(backbone: list[Row]) -> float:
    """Return the share of a backbone that was found: the smaller one of tensors and values."""
    rows = [row for row in backbone if not row.name.endswith(COUNTER)]
    found = [row for row in rows if row.status in ("matched", "first layer")]
    if not rows:
        return 1.0
    values = sum(row.n_values for row in found) / max(1, sum(row.n_values for row in rows))
    return min(len(found) / len(rows), values)


def _check(match: Match, weights: FileWeights, where: str, head: str) -> None:
    table = "\n  ".join(match.lines())
    first = next((row for row in match.rows if len(row.shape) > 2 and row.name.endswith("weight")), None)
    refused = weights.first_layer == "refuse" and first is not None and first.status == "shaped otherwise"
    if first is not None and refused and _differs_in_channels(first.shape, first.shape_in_file):
        raise ConfigError(
            f"model.weights.first_layer=refuse: {_example(first)}. Set it to sum, mean or repeat to adapt the layer to the channels\n  {table}"
        )
    if match.share < LEAST:
        raise ConfigError(
            f"{where}: it holds {match.share:.1%} of the backbone by model.weights={weights.kind}, at least {LEAST:.0%} are needed. "
            f"Choose another naming scheme or the model that these weights were trained with\n  {table}"
        )
    absent = [row for row in match.rows if row.status in ("missing", "shaped otherwise") and not _is_counter(row)]
    frozen = [row.name for row in absent if row.block in match.frozen]
    if frozen:
        raise ConfigError(
            f"model.weights.frozen={weights.frozen}: {frozen[0]} would stay at random values, since {where} does not fill it\n  {table}"
        )
    if weights.head == "loaded" and any(row.block == head for row in absent):
        wrong = next(row for row in absent if row.block == head)
        raise ConfigError(
            f"model.weights.head=loaded: {wrong.name} is {wrong.shape} in the model, {wrong.shape_in_file or 'missing'} in {where}: the "
            "classes differ. Let it start anew: model.weights.head=new"
        )


def _is_counter(row: Row) -> bool:
    return row.name.endswith(COUNTER)


def _order(row: Row) -> int:
    order = ("matched", "first layer", "new head", "shaped otherwise", "missing", "unexpected", "ignored")
    return order.index(row.status)


def _example(row: Row) -> str:
    if row.name and row.shape_in_file and row.shape != row.shape_in_file:
        return f"{row.name} {row.shape}, in the file {row.shape_in_file}"
    return row.name or row.in_file
