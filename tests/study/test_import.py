"""Archives of strangers: their Python files run only when trusted; whatever is wrong with one is said, and nothing is imported."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import random
import shutil
import sqlite3
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_cls.cli import console, main
from audio_cls.core import notices, trust
from audio_cls.core.errors import UserError
from audio_cls.core.loading import load_file
from audio_cls.core.workspace import Workspace
from audio_cls.queue.storage import open_storage, study_names
from audio_cls.study.launches import find_launch
from audio_cls.study.transfer.exporting import export_study
from audio_cls.study.transfer.importing import import_study
from audio_cls.study.transfer.removal import remove_study
from audio_cls.tracking import Tracker
from tests.commands import call
from tests.study_archives import RUN_ID, documents, pack, plain_files
from tests.study_tones import forget_artifact_places


def state(workspace: Workspace) -> dict[str, Any]:
    """What a workspace holds but for its locks: the bytes of its files, the rows of its databases."""
    out: dict[str, Any] = {}
    for path in sorted(p for p in workspace.root.rglob("*") if p.is_file()):
        if path.suffix == ".db":
            with contextlib.closing(sqlite3.connect(path)) as connection:
                out[path.name] = list(connection.iterdump())
        elif not path.name.endswith(("-wal", "-shm", ".lock")):
            out[path.relative_to(workspace.root).as_posix()] = path.read_bytes()
    return out


@pytest.fixture(scope="module")
def used(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace that holds one imported study already, for all tests that change nothing in it."""
    root = tmp_path_factory.mktemp("used")
    shutil.copytree(template, root / "w")
    forget_artifact_places()
    workspace = Workspace(root / "w")
    import_study(workspace, pack(root / "first.tar", documents(), plain_files()), name="first")
    return workspace


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with empty databases, which take seconds to make."""
    workspace = Workspace(tmp_path_factory.mktemp("template") / "w")
    workspace.root.mkdir()
    Tracker(workspace).experiment("tones/multiclass")
    open_storage(workspace.optuna_db).backend.engine.dispose()
    return workspace.root


@pytest.fixture
def fresh(template: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(template, tmp_path / "w")
    forget_artifact_places()
    return Workspace(tmp_path / "w")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return pack(tmp_path / "small.tar", documents(), plain_files())


# -- code ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_path(tmp_path: Path) -> Iterator[None]:
    """Forget the modules that a test loads from its folder, and that this folder was searched."""
    before = list(sys.path)
    yield
    sys.path[:] = before
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.usefixtures("own_path")
def test_the_files_of_an_archive_run_once_they_are_trusted(
    fresh: Workspace, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = call(capsys, fresh.root, "study", "import", str(archive))
    folder = fresh.root / "imported" / "small"
    assert str(folder / "small.py") in said
    assert str(folder / "helpers.py") in said
    assert not (fresh.root / "studies").exists()

    shown = call(capsys, fresh.root, "study", "run", "small", "--trials", "5", code=2)
    assert str(folder / "helpers.py") in shown
    assert "--trust" in shown
    for words in (["study", "revive", "small"], ["study", "run", str(folder / "small.py"), "--trials", "5"]):
        assert "--trust" in call(capsys, fresh.root, *words, code=2)
    with pytest.raises(UserError, match="came with the archive of the study 'small'"):
        load_file(folder / "helpers.py")
    assert not (folder / "executed").exists()

    find_launch(fresh, "small", None, trust=True)
    assert load_file(folder / "small.py").STUDY.name == "small"
    assert (folder / "executed").exists()


def test_trust_ends_where_a_file_changes_or_comes_again(fresh: Workspace, archive: Path, tmp_path: Path) -> None:
    import_study(fresh, archive, trust=True)
    folder = fresh.root / "imported" / "small"
    trust.ensure_trusted(folder / "small.py")
    text = (folder / "helpers.py").read_text()
    (folder / "helpers.py").write_text(text + "\n# changed")
    with pytest.raises(UserError, match="have changed since you last agreed"):
        trust.ensure_trusted(folder / "small.py")
    (folder / "helpers.py").write_text(text)
    trust.ensure_trusted(folder / "small.py")

    remove_study(fresh, "small", open_storage(fresh.optuna_db))
    assert not folder.exists()
    import_study(fresh, archive)
    with pytest.raises(UserError, match="--trust"):
        trust.ensure_trusted(folder / "small.py")


def test_an_archive_does_not_choose_which_file_of_this_machine_is_run(fresh: Workspace, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("raise SystemExit('executed')")
    parts = documents()
    parts["study.json"]["attrs"]["launch"] = {"file": str(tmp_path / "other.py"), "set": [], "sources": {}}
    said = import_study(fresh, pack(tmp_path / "a.tar", parts, plain_files()))
    assert "its file is not in the archive" in " ".join(said)
    with pytest.raises(UserError, match="its file is not known"):
        find_launch(fresh, "small", None)


def test_a_terminal_is_asked(fresh: Workspace, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_study(fresh, archive)
    file = fresh.root / "imported" / "small" / "small.py"
    asked: list[str] = []

    def answer(text: str, **_: Any) -> bool:
        asked.append(text)
        return len(asked) > 1

    monkeypatch.setattr(console, "is_interactive", lambda: True)
    monkeypatch.setattr(console.click, "confirm", answer)
    monkeypatch.setattr(notices, "_installed", console.ConsoleDisplay())
    with pytest.raises(UserError, match="--trust"):
        trust.ensure_trusted(file)
    trust.ensure_trusted(file)
    trust.ensure_trusted(file)
    assert len(asked) == 2
    assert "helpers.py" in asked[0]


def test_a_damaged_record_of_trust_trusts_nothing(fresh: Workspace, archive: Path) -> None:
    import_study(fresh, archive, trust=True)
    (fresh.root / "imported" / ".trusted.json").write_text("{")
    with pytest.raises(UserError, match="--trust"):
        trust.ensure_trusted(fresh.root / "imported" / "small" / "small.py")


@pytest.mark.parametrize(
    "name",
    ["plotly.py", "mlflow.py", "json.py", "torch/__init__.py", "audio_cls/x.py", "sitecustomize.py", "../evil.py", "/evil.py",
     "a/../../evil.py", ".hidden.py", "evil.so", "a\\b.py", "helpers.py/x.py", "a\nb.py", "C:evil.py"],
)  # fmt: skip
def test_files_that_would_take_the_place_of_others_are_refused(used: Workspace, tmp_path: Path, name: str) -> None:
    parts = documents()
    parts["study.json"]["attrs"]["launch"]["sources"][name] = "raise SystemExit"
    before = state(used)
    with pytest.raises(UserError) as error:
        import_study(used, pack(tmp_path / "bad.tar", parts, plain_files()))
    assert name.partition("/")[0] in str(error.value) or repr(name)[1:-1] in str(error.value)
    assert state(used) == before


@pytest.mark.usefixtures("own_path")
def test_a_neighbour_of_a_study_never_hides_an_installed_package(tmp_path: Path) -> None:
    """Whatever lies beside a study: what is installed comes first; other neighbours are found."""
    (tmp_path / "colorsys.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "threadpoolctl.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "own_neighbour.py").write_text("VALUE = 3")
    (tmp_path / "s.py").write_text("import colorsys, threadpoolctl\nfrom own_neighbour import VALUE\n")
    sys.modules.pop("colorsys", None)
    sys.modules.pop("threadpoolctl", None)
    module = load_file(tmp_path / "s.py")
    assert module.VALUE == 3
    assert "site-packages" in module.threadpoolctl.__file__


# -- damage -------------------------------------------------------------------------------------------------------


def _check(workspace: Workspace, file: Path) -> str | None:
    """Import: the error's text, with the workspace as it was; or None, and all studies can be looked at."""
    before, names = state(workspace), study_names(open_storage(workspace.optuna_db))
    said = None
    try:
        import_study(workspace, file, name=f"study{random.getrandbits(60)}")
    except UserError as error:
        said = str(error)
    if said is not None:
        assert state(workspace) == before, said
        assert study_names(open_storage(workspace.optuna_db)) == names
        assert "\x1b" not in said
        said.encode()
        return said

    assert main(["--workspace", str(workspace.root), "study", "status"]) == 0
    (new,) = set(study_names(open_storage(workspace.optuna_db))) - set(names)
    assert main(["--workspace", str(workspace.root), "study", "status", new, "--top", "3"]) == 0
    return None


BAD = {
    "config is a word": ("study.json", "trials.0.user_attrs.config", "x"),
    "root_trial leads out": ("study.json", "trials.3.user_attrs.root_trial", "../../x"),
    "root_trial is no trial": ("study.json", "trials.3.user_attrs.root_trial", 77),
    "no sampler": ("study.json", "attrs.audio_cls.sampler", None),
    "a sampler out of range": ("study.json", "attrs.audio_cls.sampler", {"kind": "random", "seed": -1}),
    "an unknown state": ("study.json", "trials.0.state", "DONE"),
    "a running trial": ("study.json", "trials.0.state", "RUNNING"),
    "no value": ("study.json", "trials.0.value", None),
    "a value that is none": ("study.json", "trials.0.value", float("nan")),
    "a number too large": ("study.json", "trials.0.user_attrs.attempt", 10**30),
    "a step below zero": ("study.json", "trials.0.curve", [[-1, 0.5]]),
    "a time of the Romans": ("study.json", "trials.0.start", "0001-01-01T00:00:00"),
    "a parameter without a distribution": ("study.json", "trials.0.params", {"lr": 1e-3}),
    "a choice that is none": ("study.json", "trials.0.params", {"lr": 1e-3, "kind": "z"}),
    "half of a surrogate pair": ("study.json", "trials.0.user_attrs.reason", "\ud800"),
    "a NUL": ("study.json", "trials.0.user_attrs.reason", "\0"),
    "an escape sequence": ("study.json", "trials.0.user_attrs", {"\x1b[2J": 1}),
    "the wrong direction": ("study.json", "direction", "MINIMIZE"),
    "a name that is a path": ("study.json", "name", "../../evil"),
    "a total that is a word": ("study.json", "attrs.total", "many"),
    "a run without a state": (f"mlflow/{RUN_ID}/run.json", "status", "RUNNING"),
    "a curve of words": (f"mlflow/{RUN_ID}/run.json", "metrics", {"val/f1": [["a", "b", "c"]]}),
    "a time too late": (f"mlflow/{RUN_ID}/run.json", "start", 10**30),
    "tags that are a list": (f"mlflow/{RUN_ID}/run.json", "tags", ["a"]),
    "a key that is a path": (f"mlflow/{RUN_ID}/run.json", "params", {"../x": "1"}),
    "a data set without a name": (f"mlflow/{RUN_ID}/run.json", "data", [{}]),
    "a format that is a word": ("manifest.json", "format", "one"),
    "files that are a list": ("manifest.json", "files", [1, 2]),
    "a corpus that is a number": ("manifest.json", "data", {"corpus": 3}),
}


def _put(document: Any, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        document = document[int(key) if isinstance(document, list) else key]
    document[int(last) if isinstance(document, list) else last] = value


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_hold_is_named_before_anything_is_made(used: Workspace, tmp_path: Path, case: str) -> None:
    name, path, value = BAD[case]
    parts = documents()
    _put(parts[name], path, value)
    error = _check(used, pack(tmp_path / "bad.tar", parts, plain_files()))
    assert error is not None
    assert str(tmp_path / "bad.tar") in error or path == "name"
    assert "mlflow.db" not in error


@pytest.mark.parametrize(
    "extra",
    ["checkpoints/00000/00009/last.safetensors", "checkpoints/../x", "checkpoints/00000/00000/evil.py", "checkpoints/0/0/last.safetensors",
     "mlflow/unknown/run.json", f"mlflow/{RUN_ID}/evil", "corpora/tones/index.json", "corpora/other/x"],
)  # fmt: skip
def test_files_that_belong_to_nothing_are_refused(used: Workspace, tmp_path: Path, extra: str) -> None:
    files = {**plain_files(), extra: b"{}"}
    assert _check(used, pack(tmp_path / "bad.tar", documents(), files)) is not None


def with_weights(sha256: str) -> dict[str, Any]:
    """The documents of an archive whose trials begin from a file of weights."""
    made = documents()
    weights = {"kind": "own", "file": "/gone/net.safetensors", "sha256": sha256}
    for trial in made["study.json"]["trials"]:
        trial["user_attrs"]["experiment"] = json.dumps({"model": {"kind": "small_cnn", "weights": weights}})
    return made


def test_pretrained_weights_come_along_or_are_said_to_be_missing(fresh: Workspace, tmp_path: Path) -> None:
    content = b"weights"
    files = {name: data for name, data in plain_files().items() if not name.startswith("checkpoints/")}
    sha256 = hashlib.sha256(content).hexdigest()
    bare = pack(tmp_path / "bare.tar", with_weights(sha256), files)
    said = "\n".join(import_study(fresh, bare, name="bare"))
    assert f"/gone/net.safetensors (SHA-256 {sha256[:12]}) are not here" in said
    assert str(fresh.weights / sha256) in said
    left = "\n".join(export_study(fresh, "bare", tmp_path / "again.tar"))
    assert "are not in the workspace: they are left out" in left

    full = pack(tmp_path / "full.tar", with_weights(sha256), {**files, f"weights/{sha256}": content})
    assert "pretrained weights" not in "\n".join(import_study(fresh, full, name="full"))
    assert (fresh.weights / sha256).read_bytes() == content
    assert "left out" not in "\n".join(export_study(fresh, "full", tmp_path / "carried.tar"))
    with tarfile.open(tmp_path / "carried.tar") as tar:
        assert f"weights/{sha256}" in tar.getnames()

    for name, held in ((sha256, b"others"), ("0" * 64, content), (f"{sha256}/x", content)):
        bad = pack(tmp_path / "bad.tar", with_weights(sha256), {**files, f"weights/{name}": held})
        with pytest.raises(UserError, match="nothing was imported"):
            import_study(fresh, bad, name="bad")
    assert sorted(study_names(open_storage(fresh.optuna_db))) == ["bare", "full"]


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, -1, 2**31, 2**63, 10**400, 0.5, float("nan"), float("inf"), "", "x", "../../x", "\ud800", "\0", "\x1b[31m", "x" * 70_000,
         "COMPLETE", "RUNNING", [], {}, [[]], [1, 2], {"": 0}, {"kind": "tpe", "seed": "x"}, {"name": "FloatDistribution"}]
    ),
    st.recursive(st.integers() | st.text(max_size=8), lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=5), c, max_size=3), max_leaves=6),
)  # fmt: skip


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value within a JSON value."""
    for key, content in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield (*at, key)
        yield from _places(content, (*at, key))


@pytest.mark.slow
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mutated_archive_is_imported_whole_or_refused(used: Workspace, tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:  # fmt: skip
    parts = copy.deepcopy(PARTS)
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(sorted(parts)))
        places = list(_places(parts[name]))
        if not places:
            break
        place = data.draw(st.sampled_from(places))
        holder = parts[name]
        for key in place[:-1]:
            holder = holder[key]
        how = data.draw(st.sampled_from(["replace", "replace", "delete", "rename"]))
        if how == "replace":
            holder[place[-1]] = data.draw(HOSTILE)
        elif how == "delete":
            del holder[place[-1]]
        elif isinstance(holder, dict):
            holder[data.draw(st.sampled_from(["", "x", "config", "root_trial", "../x", "\x00", "é"]))] = holder.pop(
                place[-1]
            )
    _check(used, pack(tmp_path_factory.mktemp("mutated") / "a.tar", parts, plain_files()))


PARTS = documents()


@pytest.mark.slow
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mangled_file_is_imported_whole_or_refused(used: Workspace, tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("mangled")
    whole = bytearray(pack(folder / "a.tar", PARTS, plain_files()).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "zero", "insert", "swap"]))
        if how == "flip":
            whole[place] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del whole[max(1, place) :]
        elif how == "zero":
            whole[place : place + 600] = bytes(len(whole[place : place + 600]))
        elif how == "insert":
            whole[place:place] = data.draw(st.binary(max_size=600))
        else:
            block = place // 512 * 512
            whole[block : block + 512] = whole[0:512]
    (folder / "a.tar").write_bytes(whole)
    _check(used, folder / "a.tar")


@pytest.mark.parametrize("kind", ["zip", "deep", "latin", "list", "folder", "long"])
def test_files_of_other_kinds(used: Workspace, tmp_path: Path, kind: str) -> None:
    file, parts = tmp_path / "a.tar", documents()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as out:
            out.writestr("study.json", "{}")
    elif kind == "folder":
        file.mkdir()
    elif kind == "long":
        pack(file, parts, {f"mlflow/{RUN_ID}/artifacts/{'x' * 300}": b""})
    else:
        text = {"deep": b"[" * 200_000, "latin": b'{"name": "\xe4"}', "list": b"[]"}[kind]
        parts["study.json" if kind != "list" else f"mlflow/{RUN_ID}/run.json"] = text
        pack(file, parts, plain_files())
    assert _check(used, file) is not None


# -- a damaged study, and the way out -----------------------------------------------------------------------------


def _spoil(workspace: Workspace, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(workspace.optuna_db)) as connection:
        connection.execute(statement)
        connection.commit()


DAMAGE = [
    "update trial_user_attributes set value_json = '\"x\"' where key = 'config' and {trials}",
    "update trial_user_attributes set value_json = '{{' where key = 'config' and {trials}",
    "update study_user_attributes set value_json = '{{\"metric\": \"m\"}}' where key = 'audio_cls' and {study}",
    "update study_user_attributes set value_json = '{{' where key = 'audio_cls' and {study}",
    "update trial_params set distribution_json = 'x' where {trials}",
    "delete from study_directions where {study}",
]


def test_a_damaged_study_hides_no_other_and_can_be_removed(
    fresh: Workspace, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_study(fresh, archive, name="whole")
    for statement in DAMAGE:
        import_study(fresh, archive, name="broken")
        study = "study_id = (select study_id from studies where study_name = 'broken')"
        _spoil(fresh, statement.format(study=study, trials=f"trial_id in (select trial_id from trials where {study})"))
        shown = call(capsys, fresh.root, "study", "status")
        assert "whole" in shown
        assert "study 'broken' is damaged" in shown, statement
        assert "study 'broken' is damaged" in call(capsys, fresh.root, "study", "status", "broken", code=2)
        call(capsys, fresh.root, "study", "remove", "broken", "--yes", "--with-runs")
    assert study_names(open_storage(fresh.optuna_db)) == ["whole"]
    assert len(Tracker(fresh).runs()) == 1


def test_a_study_is_removed_with_or_without_its_runs(
    fresh: Workspace, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_study(fresh, archive)
    assert "add --yes" in call(capsys, fresh.root, "study", "remove", "small", code=2)
    assert "Did you mean 'small'" in call(capsys, fresh.root, "study", "remove", "smal", "--yes", code=2)
    shown = call(capsys, fresh.root, "study", "remove", "small", "--yes")
    assert "1 runs stay" in shown
    assert [r.state for r in Tracker(fresh).runs()] == ["COMPLETE"]
    (kept,) = (fresh.checkpoints / "removed").iterdir()
    assert len(list(kept.rglob("last.safetensors"))) == 2
    assert str(kept) in shown

    import_study(fresh, archive)
    call(capsys, fresh.root, "study", "remove", "small", "--yes", "--with-runs")
    assert len(Tracker(fresh).runs()) == 1
    assert not (fresh.checkpoints / "studies" / "small").exists()
    assert not (fresh.root / "imported" / "small").exists()


def test_a_study_that_a_worker_runs_is_not_removed(fresh: Workspace, archive: Path) -> None:
    from audio_cls.queue.lease import worker_identity

    import_study(fresh, archive)
    where = open_storage(fresh.optuna_db)
    _spoil(fresh, "update trials set state = 'RUNNING' where number = 3")
    trial = where.backend.get_all_trials(where.backend.get_study_id_from_name("small"))[3]
    where.backend.set_trial_user_attr(trial._trial_id, "worker", worker_identity())
    with pytest.raises(UserError, match=r"a worker runs trial 3\. Stop its workers"):
        remove_study(fresh, "small", where)
    where.backend.set_trial_user_attr(trial._trial_id, "worker", worker_identity().rpartition("|")[0] + "|0")
    remove_study(fresh, "small", where)
    assert study_names(where) == []


def test_what_fails_after_a_run_was_made_leaves_no_run(
    fresh: Workspace, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(MlflowClient, "log_artifacts", fail)
    with pytest.raises(UserError):
        import_study(fresh, archive)
    assert Tracker(fresh).runs() == []
    assert study_names(open_storage(fresh.optuna_db)) == []
    assert not list(fresh.root.rglob("*.py"))
    assert json.loads((fresh.root / "imported" / ".trusted.json").read_text() if (fresh.root / "imported").exists() else "{}") == {}  # fmt: skip
