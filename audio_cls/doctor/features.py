"""What all features must hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from audio_cls.components.features import FeatureExtractor, Features
from audio_cls.components.row_features import RowExtractor
from audio_cls.components.shapes import check_features
from audio_cls.core.config import ConfigError
from audio_cls.core.errors import choices
from audio_cls.core.payload import Payload, waveform_payload
from audio_cls.doctor.findings import Check, Skipped, Wrong, expect, same, seeded
from audio_cls.doctor.models import SHAPES

__all__ = ["CHECKS"]

PAYLOADS = {
    "waveform": waveform_payload(16000),
    "sequence": Payload("sequence", "uint8", (16,), 1.0, 4 / 255, -2.0),
    "image": Payload("image", "uint8", (1, 32), 50.0, 1 / 255),
}
ROWS = {"waveform": 8000, "sequence": 10, "image": 40}
_CLOSE = 1e-5


def _built(config: Features) -> tuple[FeatureExtractor, Payload, int]:
    domain = config.input_domain
    expect(domain in PAYLOADS, f"input_domain is {domain!r}", choices(str(domain), PAYLOADS))
    expect(
        config.output_domain in SHAPES,
        f"output_domain is {config.output_domain!r}",
        choices(str(config.output_domain), SHAPES),
    )
    payload, n = PAYLOADS[domain], ROWS[domain]
    if domain == "waveform":
        config = config.fitted(int(payload.rate), n / payload.rate)
    extractor: Any = config.build_for(payload)
    expect(
        isinstance(extractor, FeatureExtractor),
        f"build gives a {type(extractor).__name__}",
        "return an audio_cls.FeatureExtractor, an nn.Module that knows its n_bins and hop_length",
    )
    return extractor, payload, n


def _batch(extractor: Any, payload: Payload, n: int) -> Tensor:
    if payload.is_waveform:
        return 0.1 * seeded(3, n)
    size = (3, extractor.frames(n), *payload.row)
    return torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def check_shape(config: Features) -> None:
    extractor, _, n = _built(config)
    for length in (n, n // 2 + 1, 2 * n):
        try:
            check_features(config, extractor, length, _promised(config, extractor, length))
        except ConfigError as error:
            raise Wrong(str(error), "let n_bins and frames(n_samples) say what forward gives") from None
        if not config.framewise or isinstance(extractor, RowExtractor):
            return


def _promised(config: Features, extractor: Any, n: int) -> tuple[int, ...]:
    if isinstance(extractor, RowExtractor):
        return extractor.shape(n)
    if not config.framewise:
        return (extractor.n_bins,)
    return (n,) if config.output_domain == "waveform" else (1, extractor.n_bins, extractor.frames(n))


def check_values(config: Features) -> None:
    extractor, payload, n = _built(config)
    batch = _batch(extractor, payload, n)
    for name, x in (("ordinary", batch), ("silent", torch.zeros_like(batch))):
        out = extractor(x.clone())
        expect(out.dtype == torch.float32, f"features are {out.dtype}", "return float32")
        expect(
            torch.isfinite(out).all(),
            f"features of {name} clips are not finite",
            "add a floor before a logarithm or a division",
        )


def check_determinism(config: Features) -> None:
    extractor, payload, n = _built(config)
    batch = _batch(extractor, payload, n)
    given = batch.clone()
    first, second = extractor(given).clone(), extractor(given)
    expect(
        torch.equal(first, second),
        "two calls give two results",
        "draw no random numbers: augmentation has its own place",
    )
    expect(torch.equal(given, batch), "it changes the batch that it was given", "copy before an operation in place")
    alone = torch.cat([extractor(row[None]) for row in batch])
    expect(
        same(alone, first, _CLOSE),
        "features of a clip depend on the other clips of its batch",
        "compute each clip by itself",
    )


def check_no_training(config: Features) -> None:
    extractor, payload, n = _built(config)
    trained = [name for name, parameter in extractor.named_parameters() if parameter.requires_grad]
    expect(
        not trained,
        f"its parameter {trained[0] if trained else ''} would be trained, and features are computed once, without gradients",
        "keep constants with register_buffer; what is to be trained is a layer of a model on features.kind=waveform",
    )
    expect(
        not extractor(_batch(extractor, payload, n)).requires_grad,
        "features carry a gradient",
        "keep constants with register_buffer, without requires_grad",
    )


def check_reach(config: Features) -> None:
    """A frame depends on the samples that `reach` says: long recordings are labelled piece by piece."""
    extractor, payload, n = _built(config)
    if not payload.is_waveform or not config.framewise or extractor.reach is None:
        raise Skipped("it has no reach: recordings are labelled as a whole")
    x = 0.1 * seeded(1, n)
    other = x.clone()
    other[:, n // 2 :] += 0.1 * seeded(1, n - n // 2, seed=1)
    kept = max(0, (n // 2 - extractor.reach) // extractor.hop_length)  # frames that end before the change
    before, after = extractor(x)[..., :kept], extractor(other)[..., :kept]
    expect(
        kept, f"reach={extractor.reach} is half of the clip or more", "leave reach at None for features of whole clips"
    )
    expect(
        same(before, after, _CLOSE),
        f"frames depend on samples further away than reach={extractor.reach}",
        "set reach to the samples on each side of a frame's centre that it depends on, or leave it at None",
    )


CHECKS: dict[str, Check] = {
    "shape": check_shape,
    "values": check_values,
    "determinism": check_determinism,
    "no training": check_no_training,
    "reach": check_reach,
}
