"""What all features must hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from audio_cls.components.features import FeatureExtractor, Features
from audio_cls.components.row_features import RowExtractor
from audio_cls.components.shapes import check_features
from audio_cls.core.config import ConfigError
from audio_cls.core.payload import Payload, waveform_payload
from audio_cls.doctor.findings import Check, Wrong, expect, same, seeded

__all__ = ["CHECKS"]

PAYLOADS = {
    "waveform": waveform_payload(16000),
    "sequence": Payload("sequence", "uint8", (16,), 1.0, 4 / 255, -2.0),
    "image": Payload("image", "uint8", (1, 32), 50.0, 1 / 255),
}
ROWS = {"waveform": 8000, "sequence": 10, "image": 40}
DOMAINS = ("waveform", "spectrogram", "sequence", "image", "embedding")
_CLOSE = 1e-5


def _built(config: Features) -> tuple[FeatureExtractor, Payload, int]:
    domain = config.input_domain
    expect(domain in PAYLOADS, f"input_domain is {domain!r}", f"name one of {', '.join(PAYLOADS)}")
    expect(
        config.output_domain in DOMAINS,
        f"output_domain is {config.output_domain!r}",
        f"name one of {', '.join(DOMAINS)}",
    )
    payload, n = PAYLOADS[domain], ROWS[domain]
    if domain == "waveform":
        config = config.fitted(int(payload.rate), n / payload.rate)
    return config.build_for(payload), payload, n


def _batch(extractor: Any, payload: Payload, n: int) -> Tensor:
    if payload.is_waveform:
        return 0.1 * seeded(3, n)
    size = (3, extractor.frames(n), *payload.row)
    return torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def check_shape(config: Features) -> None:
    extractor, _, n = _built(config)
    try:
        check_features(config, extractor, n, _promised(config, extractor, n))
    except ConfigError as error:
        raise Wrong(str(error), "let n_bins and frames(n_samples) say what forward gives") from None


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


CHECKS: dict[str, Check] = {"shape": check_shape, "values": check_values, "determinism": check_determinism}
