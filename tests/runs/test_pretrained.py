"""Runs that begin with pretrained weights: found, checked and kept; frozen layers and slower ones; taken up without the file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from audio_cls.components.models import SmallCnn
from audio_cls.core.config import ConfigError
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.runs.preparation import Prepared, Runtime, prepare_run, run_facts
from audio_cls.runs.pretrained import features_warning, file_hash
from audio_cls.runs.resolve import resolve
from audio_cls.tracking import Tracker
from audio_cls.training.checkpoint import CheckpointStore, read
from audio_cls.training.loop import fit
from tests.commands import call
from tests.servers import file_server

WIDTHS = (4, 6, 8)
BASE = Experiment.parse(
    {
        "data": {"corpus": "tones", "sample_rate": 8000, "clip_seconds": 0.5, "split": "folds"},
        "features": {"kind": "log_mel", "n_fft": 256, "hop_length": 128, "n_mels": 16},
        "model": {"kind": "small_cnn", "widths": list(WIDTHS)},
        "training": {"epochs": 2, "batch_size": 8, "precision": "fp32"},
    }
)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the same network with other classes."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "pretrained.safetensors"
    save_file(SmallCnn(widths=WIDTHS).build((1, 16, 16), 5).state_dict(), path)
    return path


@pytest.fixture
def runtime(tones_corpus: Path, tmp_path: Path) -> Runtime:
    torch.set_num_threads(1)
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "corpora").symlink_to(tones_corpus.parent)
    workspace = Workspace(tmp_path / "w")
    return Runtime(workspace, tracker=None, device=torch.device("cpu"))  # type: ignore[arg-type]


def pretrained(path: Path | str, **changes: Any) -> Experiment:
    settings = {"model.weights": "own", "model.weights.file": str(path)}
    return BASE.override({**settings, **{k.replace("__", "."): v for k, v in changes.items()}})


def prepared(e: Experiment, runtime: Runtime, **kwargs: Any) -> Prepared:
    return prepare_run(resolve(e, runtime.corpus(e.data)).experiment, runtime, **kwargs)


def trained(e: Experiment, runtime: Runtime, folder: Path, **kwargs: Any) -> Prepared:
    store = CheckpointStore(folder)
    made = prepared(e, runtime, resumes=lambda: store.load() is not None)
    fit(made.experiment, made.chain, made.batches, store, **kwargs)
    return made


def test_frozen_blocks_stay_as_they_are_loaded(weights_file: Path, runtime: Runtime, tmp_path: Path) -> None:
    """Their weights and running statistics, in the averaged weights as well; no optimiser state is kept for them."""
    e = pretrained(weights_file, model__weights__frozen=2, training__ema_decay=0.9)
    made = trained(e, runtime, tmp_path / "run")
    source, last = read_plain(weights_file), read(tmp_path / "run" / "last.safetensors")
    frozen = {name for name in source if name.split(".")[1] in ("0", "1", "4", "5")}
    assert {name.split(".")[-1] for name in frozen} >= {"weight", "bias", "running_mean", "running_var"}
    for part in ("model", "ema"):
        tensors = last.part(f"{part}.model")
        assert all(torch.equal(tensors[name], source[name]) for name in frozen)
        assert not any(torch.equal(v, source[k]) for k, v in tensors.items() if k in source and k not in frozen)
    n_trained = sum(p.requires_grad for p in made.chain.classifier.parameters())
    assert {name.split(".")[0] for name in last.part("optimizer")} == {str(i) for i in range(n_trained)}
    total = sum(p.numel() for p in made.chain.classifier.parameters())
    assert made.chain.n_parameters_total == total
    assert made.chain.n_parameters == total - sum(source[n].numel() for n in frozen if n.endswith(("weight", "bias")))


def read_plain(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_blocks_learn_at_their_factor_of_the_rate(weights_file: Path, runtime: Runtime, tmp_path: Path) -> None:
    """One step of plain SGD: the change of the backbone is the factor times what it is without."""
    sgd: dict[str, Any] = {
        "optimizer": {"kind": "sgd", "lr": 0.01, "momentum": 0.0},
        "schedule": "constant",
        "training.epochs": 1,
        "training.batch_size": 64,
    }
    states = {}
    for factor in (1.0, 0.25):
        e = pretrained(weights_file, model__weights__lr_factor=factor).override(sgd)
        made = trained(e, runtime, tmp_path / str(factor))
        states[factor] = made.chain.classifier.model.state_dict()
    source = read_plain(weights_file)
    name = "blocks.0.weight"
    step, smaller = (states[f][name] - source[name] for f in (1.0, 0.25))
    assert step.abs().max() > 1e-5
    assert torch.allclose(smaller, 0.25 * step, atol=1e-7)
    head = next(n for n, v in states[1.0].items() if v.shape[:1] == (3,))
    assert torch.equal(states[1.0][head], states[0.25][head])


def test_a_run_is_taken_up_bit_for_bit_also_without_the_file(
    weights_file: Path, runtime: Runtime, tmp_path: Path
) -> None:
    file = tmp_path / "copy.safetensors"
    shutil.copyfile(weights_file, file)
    e = pretrained(file, model__weights__frozen=1, model__weights__lr_decay=0.5, model__weights__sha256=file_hash(file))
    whole = trained(e, runtime, tmp_path / "whole")
    facts = run_facts(whole, runtime.device)
    trained(e, runtime, tmp_path / "cut", epochs=1)
    file.unlink()
    shutil.rmtree(runtime.workspace.weights)
    resumed = trained(e, runtime, tmp_path / "cut")
    assert resumed.match is None
    assert run_facts(prepared(e, runtime, resumes=lambda: True), runtime.device)["init.digest"] == facts["init.digest"]
    expected, found = (read(tmp_path / name / "last.safetensors").tensors for name in ("whole", "cut"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    with pytest.raises(UserError, match=rf"no such file \(SHA-256 {e.to_dict()['model']['weights']['sha256']}\)"):
        trained(e, runtime, tmp_path / "new")


def test_a_file_is_kept_by_its_hash(weights_file: Path, runtime: Runtime, tmp_path: Path) -> None:
    """Gone or moved: the workspace's copy is taken. Where it lies does not change the experiment, what is in it does."""
    file = tmp_path / "moved.safetensors"
    shutil.copyfile(weights_file, file)
    first, second = prepared(pretrained(weights_file), runtime), prepared(pretrained(file), runtime)
    assert first.experiment.digest() == second.experiment.digest() != BASE.digest()
    sha = file_hash(file)
    assert first.experiment.to_dict()["model"]["weights"]["sha256"] == sha
    assert [path.name for path in runtime.workspace.weights.iterdir()] == [sha]
    file.unlink()
    again = prepared(second.experiment, runtime)
    assert again.match is not None
    assert again.match.share == 1.0
    (runtime.workspace.weights / sha).write_bytes(b"damaged")
    with pytest.raises(UserError, match="no such file"):
        prepared(second.experiment, runtime)
    assert prepared(first.experiment, runtime).match is not None  # copied anew
    assert file_hash(runtime.workspace.weights / sha) == sha


def test_another_file_of_the_name_is_refused(weights_file: Path, runtime: Runtime) -> None:
    e = pretrained(weights_file, model__weights__sha256="0" * 64)
    with pytest.raises(UserError, match=f"its SHA-256 is {file_hash(weights_file)}, expected {'0' * 64}"):
        prepared(e, runtime)


def test_an_address_is_downloaded_once_and_checked(weights_file: Path, runtime: Runtime, tmp_path: Path) -> None:
    sha = file_hash(weights_file)
    with file_server(weights_file.parent) as address:
        url = f"{address}/{weights_file.name}"
        with pytest.raises(ConfigError, match=r"set model.weights.sha256 as well"):
            prepared(pretrained(url), runtime)
        with pytest.raises(UserError, match="not what was published"):
            prepared(pretrained(url, model__weights__sha256="0" * 64), runtime)
        e = pretrained(url, model__weights__sha256=sha)
        assert prepared(e, runtime).match is not None
    assert prepared(e, runtime).match is not None  # the server has gone
    assert e.digest() == pretrained(weights_file, model__weights__sha256=sha).digest()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model.weights.file": None}, r"model.weights=own needs model.weights.file"),
        ({"model.weights.file": "package:no-such-package"}, r"pip install no-such-package"),
        ({"model.weights.file": "package:safetensors"}, r"the package has: none"),
        ({"model.weights.frozen": 4}, r"the model has 3 blocks and a head"),
        ({"model.widths": (4, 6, 9)}, r"shaped otherwise"),
        ({"model.weights.sha256": "abc"}, r"model.weights.*sha256: expected the 64 hexadecimal digits .*, found 'abc'"),
        (
            {"model.weights.file": "ftp://x/y.pth"},
            r"ftp:// are not read. Allowed: a path, an http\(s\) address, or package:NAME",
        ),
        (
            {"model.weights.file": "FOLDER"},
            r"this is a folder, name a file in it. Files of weights there: pretrained.safetensors",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], text: str, weights_file: Path, runtime: Runtime) -> None:
    if changes.get("model.weights.file") == "FOLDER":
        changes = {"model.weights.file": str(weights_file.parent)}
    with pytest.raises(UserError, match=text):
        prepared(pretrained(weights_file).override(changes), runtime)


def test_a_hash_may_be_written_as_sites_print_it(weights_file: Path) -> None:
    sha = file_hash(weights_file)
    plain = pretrained(weights_file, model__weights__sha256=sha)
    assert pretrained(weights_file, model__weights__sha256=f"sha256:{sha.upper()}") == plain


@pytest.mark.parametrize(
    ("changes", "rate", "says"),
    [
        ({"features": "panns_log_mel"}, 32000, []),
        ({"features": "panns_log_mel"}, 16000, []),
        ({"features": {"kind": "log_mel", "n_fft": 1024, "hop_length": 320, "f_min": 50.0, "f_max": 14000.0, "mel_scale": "slaney",
                       "mel_norm": "slaney", "normalise": "none", "win_length": 1024}}, 32000, []),
        ({"features": {"kind": "panns_log_mel", "hop_length": 512}}, 32000, ["features.hop_length=512 (there 320)"]),
        ({"features": "log_mel"}, 32000, ["features.normalise=band (there none)", "features.mel_scale=htk (there slaney)"]),
        ({"features": "log_mel"}, 44100, ["data.sample_rate=44100 (there 32000)", "prepared with --sample-rate 32000"]),
        ({"features": "mfcc"}, 32000, ["Here: features=mfcc. Better: features=panns_log_mel"]),
        ({"features": "log_mel", "model.weights": "torchvision"}, 32000, []),
    ],
)  # fmt: skip
def test_other_features_than_panns_are_warned_of(changes: dict[str, Any], rate: int, says: list[str]) -> None:
    settings = {"data.sample_rate": rate, "model": "panns", "model.weights": "panns", "model.weights.file": "x.pth"}
    experiment = Experiment().override({**settings, **changes})
    fitted = experiment.features.fitted(rate, 5.0)
    said = features_warning(experiment.override({"features": fitted}), rate)
    assert bool(said) == bool(says)
    assert [part for part in says if part not in said] == []


def test_a_model_that_is_fitted_at_once_has_none() -> None:
    e = BASE.override({"model": "logistic_regression", "features": "mfcc_statistics"})
    with pytest.raises(ConfigError, match=r"fitted at once: set model.weights=none"):
        e.override({"model.weights": "own", "model.weights.file": "x"}).check()


@pytest.mark.slow
def test_train_shows_and_records_how_the_file_fits(
    weights_file: Path, runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.json").write_text(pretrained(weights_file, model__weights__frozen=1).to_json())
    shown = call(capsys, runtime.workspace.root, "train", str(tmp_path / "e.json"))
    assert "found 100.0% of the backbone; 1 of 4 blocks frozen (blocks.0 to blocks.0)" in shown
    [run] = Tracker(runtime.workspace).runs()
    assert run.params["model.weights.sha256"] == file_hash(weights_file)
    assert run.params["weights.backbone_found"] == "1.0000"
    table = Tracker(runtime.workspace).download(run.run_id, "pretrained_weights.csv").read_text()
    assert "matched,blocks.0.weight,blocks.0.weight,4x1x3x3,4x1x3x3,blocks.0,0" in table
    assert run.metrics["final/parameters"] < run.metrics["final/parameters_total"]
    call(capsys, runtime.workspace.root, "evaluate", run.run_id[:8])
