"""The examples of the repository run as they stand."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest

import audio_cls as ac

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Executed in an empty folder by a kernel of its own; it holds no outputs of an earlier run."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "first_steps.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    monkeypatch.setenv("AUDIO_CLS_WORKSPACE", str(tmp_path))
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [set().union(*(out.get("data", {}) for out in cell.outputs)) for cell in code]
    assert any("application/vnd.plotly.v1+json" in kinds for kinds in shown)
    assert sum("text/html" in kinds for kinds in shown) >= 4
    assert ac.open_run("first", workspace=tmp_path / "first_steps").state == "COMPLETE"


@pytest.mark.slow
def test_the_plain_study_runs_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "plain_optuna.py"
    shutil.copyfile(EXAMPLES / "plain_optuna.py", script)
    text = (
        script.read_text(encoding="utf-8")
        .replace('"training.epochs": 8', '"training.epochs": 2')
        .replace("n_trials=6", "n_trials=1")
    )
    script.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for number in (0, 1):
        runpy.run_path(str(script), run_name="__main__")
        said = capsys.readouterr().out
        assert f"trial {number}: COMPLETE, 2 epochs" in said
        assert "best val/macro_f1" in said
