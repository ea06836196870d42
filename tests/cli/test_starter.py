"""A newcomer's path: the guides' files, and those that `audio-cls init` writes, on data of each layout."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from audio_cls.ablation.declaration import load_ablation
from audio_cls.ablation.suite import Suite, open_suite
from audio_cls.cli.starter import ablation_text, fit, study_text
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.queue.options import QueueOptions
from audio_cls.queue.worker import run_worker
from audio_cls.runs.preparation import Runtime, check_fits
from audio_cls.runs.single import SingleRun, continue_run
from audio_cls.study.launches import Launch
from audio_cls.study.opening import open_parts
from audio_cls.study.search import study_identity, trial_objective
from audio_cls.tracking import Tracker
from tests.commands import call
from tests.runs.test_resolve import make_corpus

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
LAYOUTS = ("folder", "groups", "splits", "folds")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus of each layout, and an imbalanced one of several labels a clip."""
    root = tmp_path_factory.mktemp("starter")
    for layout in LAYOUTS:
        make_corpus(root, layout=layout)
        shutil.rmtree(root / "source")
    make_several(root)
    return root / "corpora"


def make_several(root: Path) -> None:
    from audio_cls.data import sources
    from audio_cls.data.packing import prepare
    from audio_cls.data.sources.synthetic import Synthetic, generate

    settings = Synthetic(n_clips=40, clip_seconds=0.5, sample_rate=8000, task="multilabel", imbalance=6.0)
    generate(settings, root / "several", workers=1)
    prepare(sources.read(root / "several"), root / "corpora" / "several", sample_rate=8000, workers=1)


def guide_file(page: str, start: str) -> str:
    """Return the Python file in a guide that begins with this comment."""
    block = re.search(rf"(?ms)^```python\n({re.escape(start)}\n.*?)^```", (GUIDES / page).read_text(encoding="utf-8"))
    assert block, start
    return block[1]


def place(corpora: Path, root: Path, layout: str) -> Workspace:
    """A workspace with one of the corpora under the name `mine`."""
    shutil.copytree(corpora / layout, root / "corpora" / "mine")
    return Workspace(root)


def suite_of(workspace: Workspace, file: Path) -> Suite:
    return open_suite(load_ablation(file), Tracker(workspace), QueueOptions(device="cpu"), file)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_files_of_the_guides_fit_every_layout(layout: str, corpora: Path, tmp_path: Path) -> None:
    workspace = place(corpora, tmp_path, layout)
    for page, name in (("studies.md", "studies/mine_cnn4.py"), ("ablations.md", "experiments/mine_mixup.py")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(guide_file(page, f"# {name}"))
    search = open_parts(workspace, Launch(tmp_path / "studies" / "mine_cnn4.py"), None)
    check_fits(search.study.draw(search.opened.ask())[1], search.corpus)  # type: ignore[arg-type]
    suite = suite_of(workspace, tmp_path / "experiments" / "mine_mixup.py")
    assert len(suite.plan.cells) == 3 * 3 * (1 if layout == "splits" else 5)


def test_init_writes_both_files_or_none_and_overwrites_nothing(
    corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place(corpora, tmp_path, "folder")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    mine = tmp_path / "experiments" / "mine.py"
    mine.write_text("# my own work\n")
    assert "experiments/mine.py: there already" in call(capsys, tmp_path, "init", "mine", code=2)
    assert mine.read_text() == "# my own work\n"
    assert not (tmp_path / "studies").exists()
    said = call(capsys, tmp_path, "init", "mine", "--force")
    assert "audio-cls study run studies/mine.py" in said
    assert "ABLATION" in mine.read_text()
    assert "Did you mean 'mine'?" in call(capsys, tmp_path, "init", "mime", code=2)


def test_a_corpus_named_like_a_module_does_not_hide_it(corpora: Path) -> None:
    corpus = Corpus.open(corpora / "folder")
    assert fit(corpus, "json").stem == "json-corpus"
    assert fit(corpus, "torch").stem == "torch-corpus"
    assert fit(corpus, "digits").stem == "digits"


def test_the_files_are_fitted_to_the_data(corpora: Path) -> None:
    plain, several = (fit(Corpus.open(corpora / name), "mine") for name in ("groups", "several"))
    assert "class_weights" not in study_text(plain)
    assert '"class-weights"' in ablation_text(several)
    assert several.base["loss"] == {"kind": "bce"}
    assert several.base["training"]["metric"] == "val/map"
    assert plain.base["data"]["clip_seconds"] < 1
    assert "A guess at the cost" in study_text(plain)
    for text in (study_text(plain), ablation_text(several)):
        compile(text, "mine.py", "exec")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["folder", "splits", "several"])
def test_a_trial_and_a_cell_of_the_files_that_init_writes_are_trained(
    layout: str, corpora: Path, tmp_path: Path
) -> None:
    workspace = place(corpora, tmp_path, layout)
    fitted = fit(Corpus.open(tmp_path / "corpora" / "mine"), "mine")
    study_file, suite_file = tmp_path / "study.py", tmp_path / "suite.py"
    study_file.write_text(study_text(fitted))
    suite_file.write_text(ablation_text(fitted))
    runtime = Runtime(workspace, Tracker(workspace), torch.device("cpu"))
    launch = Launch(study_file, ("training.epochs=1",))
    search = open_parts(workspace, launch, None)
    study, corpus = search.study, search.corpus
    objective = trial_objective(runtime, study, None, study_file)
    report = run_worker(study, workspace.root, 1, objective, identity=study_identity(corpus))
    assert report.ended == {"COMPLETE": 1}
    suite = suite_of(workspace, suite_file)
    experiment = suite.plan.cells[-1].experiment.override({"training.epochs": 1})
    assert continue_run(SingleRun("cell", experiment, "cell"), runtime).state == "COMPLETE"
