"""Parts of a user's own: recorded with a run, found again by whatever reads it, never run unasked when they came from elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from audio_cls import Experiment
from audio_cls.cli import main
from audio_cls.components.models import Model
from audio_cls.core.config import ConfigError
from audio_cls.core.loading import load_file
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.runs.own_parts import homeless, recorded
from audio_cls.tracking import Tracker
from tests.own_parts import SMALL, TINY, WORDS, as_new, command, write_tiny

DOCS = Path(__file__).parents[2] / "docs" / "own-parts.md"


@pytest.fixture(scope="module")
def workspace(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the corpus `tones` and the run `first`, of a model of one's own in `code/own_tiny.py`."""
    root = tmp_path_factory.mktemp("own")
    (root / "corpora").mkdir()
    (root / "corpora" / "tones").symlink_to(tones_corpus)
    (root / "clips").symlink_to(tones_corpus.parents[1] / "source" / "audio")
    with as_new(), contextlib.redirect_stdout(io.StringIO()):
        assert main(["--workspace", str(root), "train", str(write_tiny(root / "code")), "--name", "first"]) == 0
    return root


@pytest.fixture
def elsewhere(workspace: Path, tmp_path: Path) -> Path:
    """A copy of the workspace whose user has never run the file of `first`, as after a run was received."""
    root = tmp_path / "elsewhere"
    shutil.copytree(workspace, root, symlinks=True, ignore=shutil.ignore_patterns(".sources", "code", ".locks"))
    return root


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def copies(workspace: Path) -> list[Path]:
    return sorted((workspace / ".sources").glob("*/own_tiny.py"))


def test_the_file_and_its_neighbours_are_recorded(workspace: Path) -> None:
    tracker = Tracker(Workspace(workspace))
    info = tracker.resolve("first")
    (copy,) = copies(workspace)
    assert info.tags["source.digest"] == copy.parent.name
    for name in ("own_tiny.py", "own_blocks.py"):
        original = (workspace / "code" / name).read_text(encoding="utf-8")
        assert (copy.parent / name).read_text(encoding="utf-8") == original
        assert tracker.download(info.run_id, f"source/{name}").read_text(encoding="utf-8") == original


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "first"], "by class"),
        (["report", "first"], "reports/run-first-"),
        (["predict", "first", "clips/hum0.wav"], "clips/hum0.wav: "),
    ],
)
def test_a_run_is_read_without_naming_the_file(
    workspace: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    assert said in command(capsys, workspace, *words)


def test_compare_reads_runs_of_own_parts(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(workspace / "code" / "own_tiny.py")
    command(capsys, workspace, "train", file, "--set", "seed=1", "--name", "second")
    assert "paired bootstrap" in command(capsys, workspace, "compare", "first", "second")


def test_a_recorded_experiment_is_trained_again(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = Tracker(Workspace(workspace)).download(
        Tracker(Workspace(workspace)).resolve("first").run_id, "experiment.json"
    )
    shutil.copy(best, tmp_path / "best.json")
    shown = command(capsys, workspace, "train", str(tmp_path / "best.json"), "--set", "seed=2")
    assert "validation" in shown
    shown = command(capsys, workspace, "train", "--set", "model=own_tiny", *WORDS, "--set", "seed=3")
    assert "own_tiny log_mel: validation" in shown


def test_a_file_that_has_changed_is_not_taken_for_the_recorded_one(
    elsewhere: Path, workspace: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    file = write_tiny(elsewhere / "code")
    command(capsys, elsewhere, "evaluate", "first", "--with", str(file))  # now it has run here
    write_tiny(elsewhere / "code", TINY.replace("width() +", "2 * width() +"))
    with caplog.at_level(logging.WARNING):
        assert "by class" in command(capsys, elsewhere, "evaluate", "first")
    assert "own_tiny.py has changed since it was run: model own_tiny is taken from the copy" in caplog.text
    shown = command(capsys, elsewhere, "predict", "first", str(workspace / "clips"), "--with", str(file), code=2)
    assert "do not fit each other" in shown  # --with wins, and its weights have other shapes
    file.unlink()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert "by class" in command(capsys, elsewhere, "evaluate", "first")
    assert not caplog.text


def test_code_that_came_with_a_run_is_not_run_unasked(
    elsewhere: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = Tracker(Workspace(workspace)).resolve("first").run_id
    (artifact,) = elsewhere.glob(f"mlruns/*/{run_id}/artifacts/source/own_tiny.py")
    for words in (
        ["evaluate", "first"],
        ["predict", "first", str(workspace / "clips" / "hum0.wav")],
        ["report", "first"],
    ):
        shown = command(capsys, elsewhere, *words, code=2)
        assert "the model 'own_tiny' is declared by a file that came with the record and was never run" in shown
        assert "--with FILE" in shown
        assert "Traceback" not in shown
    assert not list(elsewhere.rglob("executed"))
    assert "by class" in command(capsys, elsewhere, "evaluate", "first", "--with", str(artifact))
    assert "by class" in command(capsys, elsewhere, "evaluate", "first")  # remembered


def test_a_copy_that_was_changed_is_not_run(
    elsewhere: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(workspace / ".sources", elsewhere / ".sources")
    (copy,) = copies(elsewhere)
    meta = json.loads((copy.parent / "source.json").read_text(encoding="utf-8"))
    (copy.parent / "source.json").write_text(json.dumps({**meta, "file": "/nowhere/own_tiny.py"}), encoding="utf-8")
    assert "by class" in command(capsys, elsewhere, "evaluate", "first")  # the workspace was copied to another machine
    copy.write_text(copy.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    assert "was never run in this workspace" in command(capsys, elsewhere, "evaluate", "first", code=2)


def test_an_unknown_kind_says_how_to_name_its_file(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = command(capsys, workspace, "train", "--set", "model=own_tinny", *WORDS, code=2)
    assert "'own_tinny' is no model. Allowed: cnn" in shown
    assert "declares 'model own_tinny'" in shown
    assert "--with FILE" in shown


def test_with_loads_a_file_for_a_run(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_tiny(elsewhere / "code")
    words = ["--set", "model=own_tiny", "--set", "model.extra=1", *WORDS, "--folds", "1,2", "--workers", "1"]
    shown = command(capsys, elsewhere, "train", "--with", str(file), *words)  # its worker is another process
    assert "2 of 2 runs" in shown


@pytest.mark.slow
def test_a_study_and_a_suite_of_own_parts(elsewhere: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = write_tiny(elsewhere / "code")
    (elsewhere / "code" / "own_study.py").write_text(
        "from audio_cls import Experiment\nfrom audio_cls.study import RandomSearch, Study\n"
        "def space(trial):\n    return {'model': 'own_tiny', 'model.extra': trial.suggest_int('extra', 0, 9)}\n"
        f"STUDY = Study('own', Experiment().override({SMALL!r}), space, sampler=RandomSearch(seed=0))\n",
        encoding="utf-8",
    )
    (elsewhere / "code" / "own_suite.py").write_text(
        "from audio_cls import Ablation\nfrom audio_cls.experiment import Experiment\nimport own_tiny\n"
        f"ABLATION = Ablation('own', Experiment().override({SMALL!r}), 'plain', "
        "{'plain': {}, 'own': {'model': 'own_tiny', 'model.extra': 1}}, seeds=(0,), folds=(1, 2), metric='val/accuracy')\n",
        encoding="utf-8",
    )
    study = str(elsewhere / "code" / "own_study.py")
    command(capsys, elsewhere, "study", "run", study, "--trials", "2", "--with", str(file))  # handed on to the worker
    command(capsys, elsewhere, "ablate", "run", str(elsewhere / "code" / "own_suite.py"))
    best = command(capsys, elsewhere, "study", "best", "own", "--json")
    (tmp_path / "best.json").write_text(best, encoding="utf-8")
    file.rename(tmp_path / "own_tiny.py")
    (elsewhere / "code" / "own_study.py").unlink()
    (elsewhere / "code" / "own_suite.py").unlink()
    assert "validation" in command(capsys, elsewhere, "train", str(tmp_path / "best.json"), "--set", "seed=5")
    assert "regression to the mean" in command(
        capsys, elsewhere, "study", "confirm", "own", "--top", "2", "--seeds", "1"
    )
    assert "suite-own.html" in command(capsys, elsewhere, "ablate", "report", "own")
    assert "test clips" in command(capsys, elsewhere, "evaluate", "--test", "suite own")
    assert "study-own.html" in command(capsys, elsewhere, "report", "own")
    assert not (tmp_path / "executed").exists()


METRIC = """
from audio_cls import Metric

class Misses(Metric, kind="own_misses"):
    direction, unit, high = "minimize", "clips", float("inf")

    def score(self, scores, targets, called):
        return float((targets & ~called).sum())
"""


def test_a_metric_of_ones_own_is_one_like_the_others(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = elsewhere / "code" / "own_metric.py"
    file.parent.mkdir()
    file.write_text(METRIC, encoding="utf-8")
    words = [
        "train",
        "--with",
        str(file),
        "--set",
        "training.metric=val/own_misses",
        *WORDS,
        "--set",
        "training.epochs=2",
    ]
    assert "own_misses" in command(capsys, elsewhere, *words, "--name", "judged")
    command(capsys, elsewhere, *words, "--set", "seed=1", "--name", "again")
    tracker = Tracker(Workspace(elsewhere))
    info = tracker.resolve("judged")
    curve = [value for _, value in tracker.curve(info.run_id, "val/own_misses")]
    assert len(curve) == 2
    assert info.metrics["best/own_misses"] == min(curve)  # fewer are better
    assert info.metrics["baseline/own_misses"] == 4  # of six clips of three classes
    file.unlink()  # found again by the copy that was kept
    assert re.search(rf"own_misses +{min(curve):g}", command(capsys, elsewhere, "evaluate", "judged"))
    assert re.search(r"own_misses +\d", command(capsys, elsewhere, "compare", "judged", "again").partition("paired")[2])
    (page,) = re.findall(r"(\S+run-judged-\S+\.html)", command(capsys, elsewhere, "report", "judged"))
    assert "<dt>own_misses</dt>" in (elsewhere / "reports" / Path(page).name).read_text(encoding="utf-8")
    shown = command(capsys, elsewhere, "evaluate", "--test", "judged")
    assert re.search(r"own_misses +\d\S* +(\[|no interval|every)", shown)


def test_parameter_keys_do_not_depend_on_what_was_loaded(tmp_path: Path) -> None:
    before = Experiment().flatten()
    with as_new():
        load_file(write_tiny(tmp_path))
        assert Experiment().flatten() == before
        assert "model.extra" in set(Experiment().keys())  # it can be set all the same
        own = Experiment().override({"model": "own_tiny"})
        assert own.flatten().keys() - before.keys() == {"model.extra"}
        assert Experiment().diff(own)["model.extra"] == ("none", 0)


def test_parts_of_an_installed_package_are_found(
    elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site"
    write_tiny(site, TINY.replace("own_tiny", "own_packed"))
    (site / "own_tiny.py").rename(site / "own_package.py")
    info = site / "own_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[audio_cls.components]\nown = own_package\n", encoding="utf-8")
    words = ["train", "--set", "model=own_packed", *WORDS, "--name", "packed"]
    with as_new(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(site)])
        assert main(["--workspace", str(elsewhere), *words]) == 0
    assert "own_packed" in str(Tracker(Workspace(elsewhere)).resolve("packed").params["model.kind"])
    capsys.readouterr()


def test_a_part_without_a_file_is_said(tmp_path: Path) -> None:
    module = types.ModuleType("own_notebook")
    source = "class Typed(Model, kind='own_typed'):\n    def build(self, input_shape, n_classes): ...\n"
    exec(source, {"Model": Model, "__name__": module.__name__})
    experiment = Experiment().override({"model": "own_typed"})
    try:
        assert homeless(experiment) == ["model own_typed"]
        assert homeless(Experiment()) == []
    finally:
        Model._members.pop("own_typed")
    with pytest.raises(ConfigError, match="name the file that does with --with FILE"):
        recorded(lambda: Experiment().override({"model": "own_typed"}), Workspace(tmp_path))


def test_a_file_known_under_two_names_is_one_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    file = write_tiny(elsewhere / "code")
    (elsewhere / "code" / "own_experiment.py").write_text("from own_tiny import EXPERIMENT\n", encoding="utf-8")
    words = ["train", str(elsewhere / "code" / "own_experiment.py"), "--with", str(file), "--set", "seed=7"]
    assert "validation" in command(capsys, elsewhere, *words)


# -- the guide ----------------------------------------------------------------------------------------------------------


def examples() -> list[tuple[str, str, list[str]]]:
    """(file, text, command) of each example in docs/own-parts.md."""
    found = re.findall(
        r"```python\n# (\w+\.py)\n((?:(?!```).)*)```\n\n    audio-cls (train [^\n]*)\n",
        DOCS.read_text(encoding="utf-8"),
        re.S,
    )
    return [(name, text, words.split()) for name, text, words in found]


def test_the_guide_has_an_example_of_each_family() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for family in (
        "Model",
        "Loss",
        "Augmentation",
        "Features",
        "Sampling",
        "Optimizer",
        "Schedule",
        "Metric",
        "Source",
    ):
        assert re.search(rf"class \w+\({family}, kind=", text)
    assert len(examples()) + 1 == text.count("```python") == 10


@pytest.mark.parametrize(
    ("name", "text", "words"), examples(), ids=lambda v: v if isinstance(v, str) and v.endswith(".py") else ""
)
def test_an_example_of_the_guide_trains(
    workspace: Path, tmp_path: Path, name: str, text: str, words: list[str], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    keys = {k: v for k, v in SMALL.items() if not (name == "spectrogram_db.py" and k.startswith("features"))}
    base = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    shown = command(capsys, workspace, *words, *base, "--name", name)
    assert f"{name}: validation" in shown
    info = Tracker(Workspace(workspace)).resolve(name)
    assert info.state == "COMPLETE"
    if name == "margins.py":
        for _ in range(2):  # on the page at once, and again in a process that has not loaded the file
            (page,) = re.findall(r"(\S+run-margins\S+\.html)", command(capsys, workspace, "report", info.run_id))
            assert ">Margins</h2>" in (workspace / "reports" / Path(page).name).read_text(encoding="utf-8")
            Path(name).unlink(missing_ok=True)
        return
    key, _, value = next(w for w in reversed(words) if "=" in w).partition("=")
    assert info.params[key] == value or float(info.params[key]) == float(value)


def test_a_source_of_ones_own_reads_a_layout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import soundfile

    text = re.search(
        r"```python\n# speakers\.py\n(.*?)```\n\n    audio-cls (data [^\n]*)\n", DOCS.read_text("utf-8"), re.S
    )
    assert text
    monkeypatch.chdir(tmp_path)
    Path("own_speakers.py").write_text(text[1], encoding="utf-8")
    Path("words").mkdir()
    Path("words/speakers.txt").touch()
    noise = np.random.default_rng(0).standard_normal((8, 4000)) * 0.1
    for k, row in enumerate(noise):
        soundfile.write(f"words/{('yes', 'no')[k % 2]}_anna{k // 4}_{k}.wav", row, 8000)
    words = text[2].replace("speakers.py", "own_speakers.py").split()
    assert "words: 8 clips, 2 classes" in command(capsys, tmp_path, *words)
    assert Corpus.open(tmp_path / "corpora" / "words").groups[:2] == ("anna0", "anna0")
    # found again by its name, with an option of its own; a wrong one is refused
    again = ["data", "prepare", "words", "--name", "again", "--layout", "speakers"]
    assert "no clips found" in command(capsys, tmp_path, *again, "--set", "suffix=.flac", code=2)
    assert "has no option 'sufix'. Allowed: suffix. Did you mean" in command(
        capsys, tmp_path, *again, "--set", "sufix=.flac", code=2
    )
    assert "'speaker' is no layout" in command(capsys, tmp_path, *again[:-1], "speaker", code=2)


# -- what is missing, what does not fit, what fails -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "said"),
    [
        (
            "audio_cls.components.models:Model",
            r"Own\.build\(input_shape, n_classes\) is missing: every Model defines it",
        ),
        ("audio_cls.components.losses:Loss", r"Own\.build\(class_counts, n_clips, task\) is missing"),
        ("audio_cls.components.augment:Augmentation", r"Own\.build\(sample_rate, hop_length\) is missing"),
        ("audio_cls.components.features:Features", r"Own\.build\(sample_rate\) is missing"),
        ("audio_cls.components.sampling:Sampling", r"Own\.build\(targets\) is missing"),
        ("audio_cls.components.optim:Optimizer", r"Own\.build\(parameters\) is missing"),
        ("audio_cls.components.optim:Schedule", r"Own\.shape\(epoch, epochs, history\) is missing"),
        ("audio_cls.study.declaration:SamplerConfig", r"Own\.make\(seed\) is missing"),
        ("audio_cls.study.declaration:PrunerConfig", r"Own\.make\(\) is missing"),
    ],
)
def test_a_missing_method_is_named(family: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, name = family.partition(":")
    file = tmp_path / "own_part.py"
    file.write_text(f"from {module} import {name}\nclass Own({name}, kind='own_part'):\n    pass\n", encoding="utf-8")
    shown = command(capsys, tmp_path, "train", str(file), code=2)
    assert re.search(rf"own_part\.py, line 2: {said}", shown)


PART = """
from torch import nn
from audio_cls import Augmentation, FeatureExtractor, Features, Loss, Model, Sampling

class Net(nn.Module):
    def forward(self, x):
        raise ArithmeticError("a slip of the pen")

class Extractor(FeatureExtractor):
    def forward(self, x):
        return x.new_zeros(len(x), 1, self.n_bins + 1, self.frames(x.shape[1]))

class PerClip(nn.Module):
    def forward(self, logits, targets):
        return (logits * targets).sum(1)

class M(Model, kind="own_m"):
    input_domains = ("spectrogram",)
    what: str = "wide"
    def build(self, input_shape, n_classes):
        if self.what == "faulty":
            return Net()
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, n_classes + 4))

class L(Loss, kind="own_l"):
    def build(self, class_counts, n_clips, task):
        return PerClip()

class A(Augmentation, kind="own_a"):
    domain = "spectrogram"
    def build(self, sample_rate, hop_length):
        return lambda x, generator: x[..., :-1]

class F(Features, kind="own_f"):
    def build(self, sample_rate):
        return Extractor(128, 20)

class S(Sampling, kind="own_s"):
    def build(self, targets):
        return lambda seed, epoch: [0, len(targets)]
"""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["model=own_m"], "model.kind=own_m: (2, 7) found, (2, 3) expected: (batch, n_classes)"),
        (["loss=own_l"], "loss.kind=own_l: (2,) found, () expected: one number"),
        (
            ["augment.own_a=on"],
            "augment.own_a A: (2, 1, 32, 62) found, (2, 1, 32, 63) expected: the shape of its batch",
        ),
        (["features.kind=own_f"], "features.kind=own_f: (2, 1, 21, 63) found, (2, 1, 20, 63) expected"),
        (["sampling=own_s"], "sampling.kind=own_s: an epoch has the rows 0 to 18, expected 0 to 17"),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else "",
)
def test_a_shape_that_does_not_fit_is_refused_before_training(
    elsewhere: Path, tmp_path: Path, changes: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_part.py").write_text(PART, encoding="utf-8")
    keys = {k: v for k, v in SMALL.items() if not (k.startswith("features") and "own_f" in changes[0])}
    words = [w for pair in [f"{k}={v}" for k, v in keys.items()] + changes for w in ("--set", pair)]
    shown = command(capsys, elsewhere, "train", "--with", str(tmp_path / "own_part.py"), *words, code=2)
    assert said in " ".join(shown.split())


def test_a_fault_in_a_model_shows_its_line_and_the_whole_traceback(
    elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own_part.py"
    file.write_text(PART, encoding="utf-8")
    words = ["--with", str(file), *WORDS, "--set", "model=own_m", "--set", "model.what=faulty"]
    shown = " ".join(command(capsys, elsewhere, "train", *words, code=2).split())
    line = next(i for i, text in enumerate(PART.splitlines(), start=1) if "a slip of the pen" in text)
    assert (
        f'ArithmeticError: a slip of the pen ({file}, line {line}: raise ArithmeticError("a slip of the pen"))' in shown
    )
    found = re.search(r"the whole traceback is in (\S+)", shown)
    assert found is not None
    assert "in forward" in Path(found[1]).read_text(encoding="utf-8")


def test_checking_shapes_changes_nothing(tones_corpus: Path, tmp_path: Path) -> None:
    """Batch statistics, training flags and random state are what they were."""
    import torch

    from audio_cls.components.shapes import check_model

    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.random.get_rng_state()
    check_model(Experiment().model, model, (1, 8, 9), 3)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert [m.training for m in model] == [True, False, True, True, True]
    assert torch.equal(random, torch.random.get_rng_state())
