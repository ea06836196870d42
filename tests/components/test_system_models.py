"""The networks of published systems: their exact sizes, and what is special about each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from audio_cls.components.features import Normaliser
from audio_cls.components.models import Cnn, Conv1d, Conv2d, DualStream, FrameMlp, Mlp, Model, Rnn, parameter_count
from audio_cls.components.models.cnn import GridAverage
from audio_cls.components.models.frame_mlp import FrameLayers
from audio_cls.components.models.real_frames import RealFrames, last_real_frame, learn_filler_frames
from audio_cls.components.row_features import BEGIN, END, PADDING, REAL, Frames
from audio_cls.core.config import ConfigError
from audio_cls.core.payload import Payload
from audio_cls.experiment import Experiment

EMBEDDINGS = (1, 128, 10)


@pytest.mark.parametrize(
    ("config", "shape", "n_classes", "count"),
    [
        (FrameMlp(), (1, 40, 500), 15, 13_365),
        (FrameMlp(hidden=(64, 64)), (1, 64, 500), 15, 25_679),
        (DualStream(), (1, 64, 500), 15, 50_159),
        (Cnn(), (1, 128, 516), 200, 1_472_776),
        (Cnn(), (1, 128, 517), 200, 1_472_776),
        (Cnn(widths=(16, 32, 64), pooled=(3, 1), head=(), dropout=(0.0,)), (1, 64, 500), 15, 26_415),
        (Cnn(widths=(32, 64, 128), head=(730,), dropout=(0.2,)), (1, 128, 500), 15, 1_599_855),
        (Cnn(widths=(32, 64, 128), pooled=None, head=(128,), dropout=(0.2,)), (1, 64, 431), 6, 7_040_838),
        (
            Cnn(widths=(8, 8), pool=(1, 4), kernel_size=5, bias=False, pooled=(1, 1), head=(), dropout=(0.1,)),
            (3, 16, 16),
            2,
            2_250,
        ),
        (Mlp(hidden=(32,), pooling="flatten"), EMBEDDINGS, 2, 41_058),
        (Mlp(hidden=(128,), pooling="flatten", activation="none"), EMBEDDINGS, 2, 164_226),
        (Conv1d(), EMBEDDINGS, 2, 131_394),
        (Conv1d(active_layers=1), EMBEDDINGS, 2, 128 + 2 * 32 * 1278 + 2),
        (Conv1d(active_layers=5), EMBEDDINGS, 2, 128 + 10_304 + 2 * 64 * 254 + 2),
        (Conv2d(), EMBEDDINGS, 2, 1_113_182),
        (Rnn(), (1, 128, 12), 2, 150_530),
        (Rnn(cell="gru"), (1, 128, 12), 2, 121_474),
    ],
)
def test_sizes_are_the_published_ones(config: Model, shape: tuple[int, ...], n_classes: int, count: int) -> None:
    with torch.device("meta"):  # nothing is computed
        assert parameter_count(config.build(shape, n_classes)) == count


def test_a_wide_layer_that_no_memory_holds_is_refused_unless_asked_for() -> None:
    spectrogram = (1, 64, 313)
    with pytest.raises(
        ConfigError, match=r"model.hidden=none: 36\d\d\d units, .* expected at most 100 million: set model.hidden"
    ):
        Conv2d().build(spectrogram, 10)
    with torch.device("meta"):
        assert Conv2d(hidden=128).build(spectrogram, 10)(torch.empty(2, *spectrogram)).shape == (2, 10)


def test_the_frame_layers_of_the_dual_stream_have_the_size_of_its_mlp() -> None:
    assert parameter_count(FrameLayers(64, 5, (64, 64), 0.2)) == 24_704


def test_what_was_recorded_of_an_mlp_keeps_its_digest() -> None:
    assert "activation" not in Mlp(hidden=(8,)).to_dict()


# -- frames -----------------------------------------------------------------------------------------------------------


def frame_logits(model: nn.Module, x: torch.Tensor, context: int) -> torch.Tensor:
    """The logits of each frame from its context written out, (batch, frames, n_classes)."""
    layers: FrameLayers = model.frames  # type: ignore[assignment]
    before = context // 2
    out = []
    for t in range(x.shape[3]):
        at = [min(max(t - before + k, 0), x.shape[3] - 1) for k in range(context)]
        vector = x[:, 0, :, at]  # (batch, n_bins, context)
        first = torch.einsum("bvc,hvc->bh", vector, layers.first.weight) + layers.first.bias
        out.append(model.output(layers.layers(first)))  # type: ignore[operator]
    return torch.stack(out, 1)


@pytest.mark.parametrize("context", [1, 4, 5])
@pytest.mark.parametrize("vote", ["mean", "majority"])
def test_frames_see_their_context_and_vote(context: int, vote: str) -> None:
    torch.manual_seed(0)
    x = 10 * torch.randn(6, 1, 8, 9)
    model = FrameMlp(context=context, hidden=(7, 6), vote=vote).build((1, 8, 9), 3).eval()  # type: ignore[arg-type]
    nn.init.zeros_(model.output.bias)  # type: ignore[arg-type]
    frames = frame_logits(model, x, context)
    found = model(x)
    if vote == "mean":
        torch.testing.assert_close(found, frames.mean(1))
        return
    votes = torch.stack([(frames.argmax(2) == c).sum(1) for c in range(3)], 1).float()
    assert len({tuple(row) for row in votes.tolist()}) > 1, "the clips differ in their votes"
    torch.testing.assert_close(found.exp(), (votes + frames.mean(1).softmax(1)) / 10)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(6))
    torch.testing.assert_close(model.train()(x).shape, found.shape)


def test_the_loss_of_the_mean_is_below_that_of_the_frames_by_their_disagreement() -> None:
    torch.manual_seed(1)
    x, y = torch.randn(5, 1, 8, 6), torch.tensor([0, 1, 2, 0, 1])
    model = FrameMlp(hidden=(6,), dropout=0.0).build((1, 8, 6), 3).train()
    frames = frame_logits(model, x, 5).log_softmax(2)
    disagreement = -frames.mean(1).exp().sum(1).log()
    assert bool((disagreement > 0).all())
    loss = nn.functional.cross_entropy(model(x), y, reduction="none")
    torch.testing.assert_close(loss + disagreement, -frames[torch.arange(5), :, y].mean(1))


def test_a_step_on_one_frame_uses_each_frame_equally_often() -> None:
    torch.manual_seed(2)
    x = torch.randn(1, 1, 8, 4)
    model = FrameMlp(hidden=(6,), dropout=0.0, training_frames="one").build((1, 8, 4), 3).train()
    frames = frame_logits(model, x, 5)[0]
    drawn = model(x.expand(400, -1, -1, -1))
    at = torch.cdist(drawn, frames).argmin(1)
    torch.testing.assert_close(drawn, frames[at])
    assert torch.bincount(at, minlength=4).min() > 60
    torch.testing.assert_close(model.eval()(x)[0], frames.mean(0))


def test_dual_stream_is_the_linear_layer_on_both_branches() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 1, 16, 20)
    model = DualStream(widths=(4, 8), hidden=(5,), pooled=(2, 1)).build((1, 16, 20), 3).eval()
    frames, picture = model.mlp(x), model.cnn(x)  # type: ignore[operator]
    both = torch.cat([frames, picture[:, None].expand(-1, 20, -1)], 2)  # each frame beside the picture
    torch.testing.assert_close(model(x), model.output(both).mean(1))  # type: ignore[operator]


# -- convolutions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "cells"), [((8, 32), (4, 4)), ((8, 33), (3, 1)), ((7, 5), (4, 4)), ((2, 3), (4, 4))])
def test_averaging_to_a_grid_is_adaptive_pooling(size: tuple[int, int], cells: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, *size)
    torch.testing.assert_close(GridAverage(size, cells)(maps), nn.AdaptiveAvgPool2d(cells)(maps))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": (2, 2, 2)}, "model.*pool: 3 values found, expected 1 or 4"),
        ({"dropout": (0.1, 0.2, 0.3)}, "dropout: 3 values found, expected 1 or 2"),
        ({"head": ()}, "dropout: 2 values found, expected 1"),
        ({"dropout": (1.0,)}, "dropout: expected probabilities"),
        ({"kernel_size": 4}, "kernel_size: expected an odd number"),
    ],
)
def test_settings_of_a_cnn_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Experiment().override({"model": {"kind": "cnn", **changes}})


def test_conv1d_reads_row_after_row_and_says_how_many_values_it_needs() -> None:
    model = Conv1d(active_layers=1, kernel_sizes=(1, 1, 1)).build((1, 3, 2), 2)
    x = torch.tensor([[[[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]]])  # two frames of three values
    seen: list[torch.Tensor] = []
    model.layers.register_forward_hook(lambda _m, given, _o: seen.append(given[0]))  # type: ignore[operator]
    model(x)
    assert seen[0].flatten().tolist() == [1, 2, 3, 4, 5, 6]
    for layers in range(1, 8):
        config = Conv1d(active_layers=layers)
        with pytest.raises(ConfigError, match=r"at least \d+ values .* found 1") as refused:
            config.build((1, 1, 1), 2)
        needed = int(str(refused.value).split("at least ")[1].split()[0])
        with pytest.raises(ConfigError):
            config.build((1, 1, needed - 1), 2)
        assert config.build((1, 1, needed), 2)(torch.randn(2, 1, 1, needed)).shape == (2, 2)


def test_the_smallest_map_of_conv2d() -> None:
    for kernel in (1, 2, 3):
        config = Conv2d(kernel_size=kernel)
        smallest = 2 * kernel + 2 * (kernel - 1)
        assert config.build((1, smallest, smallest), 2)(torch.randn(3, 1, smallest, smallest)).shape == (3, 2)
        with pytest.raises(ConfigError, match=f"at least {smallest}"):
            config.build((1, smallest, smallest - 1), 2)


# -- padding and markers ----------------------------------------------------------------------------------------------


def windows(
    markers: tuple[float, float] | None, normalise: str
) -> tuple[torch.Tensor, torch.Tensor, nn.Module, Normaliser]:
    """Three clips of 3, 5 and 4 rows in windows of 7 frames, normalised; the places of their rows; what made them."""
    rows = torch.randint(0, 256, (3, 7, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    begin = 0 if markers is None else 1
    place = torch.full((3, 7), PADDING)
    for i, n in enumerate((3, 5, 4)):
        place[i, begin : begin + n] = REAL
        if markers:
            place[i, 0], place[i, 1 + n] = BEGIN, END
    payload = Payload("sequence", "uint8", (16,), 1.0, 4 / 255, 4 / 512 - 2)
    config = Frames(markers=markers, normalise=normalise)  # type: ignore[arg-type]
    extractor = config.build_for(payload)
    normaliser = Normaliser.build(config, extractor.n_bins).fit([extractor.statistics_rows(rows.flatten(0, 1))])
    return normaliser(extractor(rows, place)), place == REAL, extractor, normaliser


@pytest.mark.parametrize("normalise", ["band", "global", "none"])
@pytest.mark.parametrize("markers", [None, (-1.0, -2.0)])
def test_rows_of_a_clip_are_told_from_padding_and_markers(markers: tuple[float, float] | None, normalise: str) -> None:
    x, expected, extractor, normaliser = windows(markers, normalise)
    parts = nn.ModuleList([RealFrames(16)])
    assert bool(parts[0](x[:, 0]).all()), "all are real before anything is known"
    learn_filler_frames(parts, extractor, normaliser)
    assert torch.equal(parts[0](x[:, 0]), expected)
    assert torch.equal(parts[0](x[:, 0] + 0.3), expected), "a constant added to a clip changes nothing"
    last = last_real_frame(expected)
    assert last.sum(1).tolist() == [1, 1, 1]
    assert last.float().argmax(1).tolist() == [int(row.nonzero().max()) for row in expected]
    assert last_real_frame(torch.zeros(1, 4, dtype=torch.bool)).tolist() == [[False, False, False, True]]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_recurrent_network_is_read_at_the_last_row_of_the_clip(cell: str, pooling: str) -> None:
    x, real, extractor, normaliser = windows((-1.0, -2.0), "band")
    torch.manual_seed(0)
    config = Rnn(cell=cell, pooling=pooling, hidden=6, layers=2, head=5)  # type: ignore[arg-type]
    model = config.build((1, 16, 7), 3).eval()
    untold = model(x)
    learn_filler_frames(model, extractor, normaliser)
    found = model(x)
    assert (found - untold).abs().max() > 1e-4
    for i, n in enumerate((3, 5, 4)):
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        whole = kind(16, 6, num_layers=2, batch_first=True)  # the same weights in one module, on the clip alone
        for k, layer in enumerate(model.layers):  # type: ignore[arg-type]
            for name, value in layer.named_parameters():
                getattr(whole, name.replace("_l0", f"_l{k}")).data.copy_(value)
        out, _ = whole(x[i, 0, :, : 1 + n].T[None])  # the begin marker and the rows
        taken = out[:, -1] if pooling == "last" else out[:, 1:].mean(1)
        torch.testing.assert_close(found[i], model.output(model.head(taken))[0])  # type: ignore[operator]
    assert real.sum() == 12


def test_what_fillers_look_like_is_saved_with_the_weights() -> None:
    x, _, extractor, normaliser = windows((-1.0, -2.0), "band")
    model, twin = (Rnn(hidden=4, layers=1, head=4).build((1, 16, 7), 2).eval() for _ in range(2))
    learn_filler_frames(model, extractor, normaliser)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(model(x), twin(x))
