"""Features of rows that are no waveforms: what they give, and the statistics that normalise them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audio_cls.components.normaliser import IMAGENET, Normaliser
from audio_cls.components.row_features import BEGIN, END, PADDING, REAL, Frames, Pixels
from audio_cls.components.shapes import check_features
from audio_cls.core.config import ConfigError
from audio_cls.core.payload import Payload

EMBEDDING = Payload("sequence", "uint8", (128,), 1, 4 / 255, 4 / 512 - 2, "quantised PCA")
COLOURS = Payload("image", "uint8", (3, 40), 100, 1 / 255)
GREY = Payload("image", "uint16", (1, 40), 100, 1 / 65535)


def stored(payload: Payload, *size: int) -> torch.Tensor:
    high = 256 if payload.dtype == "uint8" else 65536
    values = np.random.default_rng(0).integers(0, high, (*size, *payload.row))
    return torch.from_numpy(values.astype(np.uint8 if high == 256 else np.int32))


def test_frames_are_the_vectors_as_numbers() -> None:
    extractor, rows = Frames().build_for(EMBEDDING), stored(EMBEDDING, 3, 10)
    out = extractor(rows)
    assert (out.shape, extractor.shape(10), extractor.frames(10)) == ((3, 1, 128, 10), (1, 128, 10), 10)
    expected = EMBEDDING.to_float(rows.numpy()).transpose(0, 2, 1)
    np.testing.assert_allclose(out[:, 0].numpy(), expected, atol=1e-6)
    raw = Frames(dequantise=False).build_for(EMBEDDING)(rows)
    assert torch.equal(raw[:, 0].transpose(1, 2), rows.float())
    check_features(Frames(), extractor, 10, (1, 128, 10))
    with pytest.raises(ConfigError, match="takes a corpus of sequences, no waveforms"):
        Frames().build(16000)


def test_markers_and_padding_take_the_place_of_rows() -> None:
    extractor = Frames(markers=(-1.0, -2.0)).build_for(EMBEDDING)
    rows = stored(EMBEDDING, 1, 5)
    place = torch.tensor([[BEGIN, REAL, REAL, END, PADDING]], dtype=torch.int8)
    out = extractor(rows, place)[0, 0]
    assert [float(out[:, k].unique()) for k in (0, 3, 4)] == [-1.0, -2.0, 0.0]
    np.testing.assert_allclose(out[:, 1:3].T.numpy(), EMBEDDING.to_float(rows[0, 1:3].numpy()), atol=1e-6)
    assert extractor.shape(10) == (1, 128, 12)


def test_pixels_stand_as_they_are_seen() -> None:
    rows = stored(COLOURS, 2, 30)
    extractor = Pixels().build_for(COLOURS)
    out = extractor(rows, torch.tensor([[REAL] * 29 + [PADDING]] * 2, dtype=torch.int8))
    assert out.shape == (2, *extractor.shape(30)) == (2, 3, 40, 30)
    np.testing.assert_allclose(out[0, :, :, 7].numpy(), rows[0, 7].numpy() / 255, atol=1e-6)
    assert float(out[..., 29].abs().max()) == 0
    wide = Pixels(size=64).build_for(COLOURS)
    assert wide(rows).shape == (2, *wide.shape(30)) == (2, 3, 64, 64)
    assert float(wide(torch.full_like(rows, 51)).sub(0.2).abs().max()) < 1e-5
    check_features(Pixels(size=64), wide, 30, (3, 64, 64))


def test_channels_are_repeated_or_become_luminance() -> None:
    grey, three = stored(GREY, 2, 30), Pixels(channels=3).build_for(GREY)
    out = three(grey)
    assert out.shape == (2, 3, 40, 30)
    assert torch.equal(out[:, 0], out[:, 2])
    np.testing.assert_allclose(out[0, 0, :, 3].numpy(), grey[0, 3, 0].numpy() / 65535, atol=1e-6)
    one = Pixels(channels=1).build_for(COLOURS)
    colours = stored(COLOURS, 1, 4)
    expected = (colours[0].float() * torch.tensor([0.299, 0.587, 0.114])[:, None]).sum(1) / 255
    np.testing.assert_allclose(one(colours)[0, 0].numpy(), expected.T.numpy(), atol=1e-6)


def test_statistics_are_by_channel_by_value_or_known() -> None:
    rows = stored(COLOURS, 50)
    extractor = Pixels().build_for(COLOURS)
    normaliser = Normaliser.build(Pixels(), extractor.n_bins).fit([extractor.statistics_rows(rows)])
    out = normaliser(extractor(rows[None]))
    assert float(out.mean((0, 2, 3)).abs().max()) < 1e-5
    assert float(out.std((0, 2, 3), correction=0).sub(1).abs().max()) < 1e-5
    assert normaliser.mean.shape == (1, 3, 1, 1)
    known = Normaliser.build(Pixels(normalise="imagenet"), 3).fit([])
    assert known.mean.flatten().tolist() == pytest.approx(IMAGENET[0])
    assert known(torch.zeros(1, 3, 4, 4))[0, 1, 0, 0].item() == pytest.approx(-0.456 / 0.224)
    with pytest.raises(ConfigError, match=r"three channels, these pictures have 1: set features.channels=3"):
        Pixels(normalise="imagenet").build_for(GREY)
    vectors = stored(EMBEDDING, 60)
    frames = Frames().build_for(EMBEDDING)
    by_value = Normaliser.build(Frames(), frames.n_bins).fit([frames.statistics_rows(vectors)])
    assert by_value.mean.shape == (1, 1, 128, 1)
    assert float(by_value(frames(vectors[None])).mean((0, 1, 3)).abs().max()) < 1e-5
