"""A study on another machine: moved with its folder, exported and imported, merged with its copy; damaged archives refused."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from audio_cls.core.errors import UserError
from audio_cls.data.index import content_digest, read_index
from audio_cls.queue.places import trial_folder
from audio_cls.queue.queue import Tally
from audio_cls.queue.status import study_status
from audio_cls.queue.storage import load_study, study_names
from audio_cls.study.launches import Launch
from audio_cls.study.transfer import importing as study_import
from audio_cls.study.transfer.archive import read_archive
from audio_cls.study.transfer.exporting import export_study
from audio_cls.study.transfer.importing import import_study
from audio_cls.study.transfer.merge import join
from audio_cls.tracking import Tracker
from audio_cls.training.checkpoint import read
from tests.study_tones import Killed, Place, forget_artifact_places


@pytest.fixture(scope="module")
def begun(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete trial, a pruned one, and one whose worker was killed after its second epoch: still RUNNING."""
    place = Place(tmp_path_factory.mktemp("begun") / "w", tones_corpus)
    place.enqueue(1e-2, 1e-6)
    place.run(2)
    place.enqueue(2e-2)
    with pytest.raises(Killed):
        place.run(3, stop_after=2)
    assert [t.state.name for t in place.study().trials] == ["COMPLETE", "PRUNED", "RUNNING"]
    return place.workspace.root


@pytest.fixture(scope="module")
def archive(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    forget_artifact_places()
    file = tmp_path_factory.mktemp("archive") / "tones.tar"
    said = export_study(Place(begun, None).workspace, "tones", file)
    assert "3 trials, 3 checkpoints, 4 runs" in said[0]
    return file


@pytest.fixture
def here(begun: Path, tmp_path: Path) -> Place:
    shutil.copytree(begun, tmp_path / "here")
    return Place(tmp_path / "here", None)


@pytest.fixture
def there(tones_corpus: Path, tmp_path: Path) -> Place:
    """Another workspace, with the data and nothing else."""
    place = Place(tmp_path / "there", tones_corpus)
    place.file.unlink()
    return place


def outcomes(place: Place, name: str = "tones") -> dict[int, Any]:
    latest = Tally.of(load_study(name, place.storage).get_trials(deepcopy=False)).latest
    return {k: (t.state.name, t.params, t.value, t.intermediate_values) for k, t in sorted(latest.items())}


def check_runs(place: Place, name: str = "tones") -> None:
    """Every configuration has one run below the study's, with the whole curve, and artifacts in this workspace."""
    tracker = Tracker(place.workspace)
    study = load_study(name, place.storage)
    runs = {r.run_id: r for r in tracker.runs() if r.tags.get("study") == name}
    parent = runs.pop(study.user_attrs["mlflow_run_id"])
    for trial in Tally.of(study.get_trials(deepcopy=False)).latest.values():
        run = runs.pop(trial.user_attrs["mlflow_run_id"])
        assert run.parent == parent.run_id
        assert "importing" not in run.tags
        assert tracker.curve(run.run_id, "val/macro_f1") == sorted(trial.intermediate_values.items())
        assert run.artifact_uri.removeprefix("file://").startswith(str(place.workspace.artifacts))
        assert tracker.download(run.run_id, "experiment.json").is_file()
        if trial.state == TrialState.COMPLETE:
            assert run.state == "COMPLETE"
            assert read(tracker.download(run.run_id, "weights/best.safetensors")).tensors
    assert not runs


def test_a_study_that_goes_on_elsewhere_is_the_one_that_stayed(here: Place, there: Place, archive: Path) -> None:
    said = import_study(there.workspace, archive, trust=True)
    assert "audio-cls study run tones" in said[-1]
    launch = Launch(there.workspace.root / "imported" / "tones" / "tones.py", (), "tones")
    assert launch.file.read_text() == here.file.read_text()
    before = load_study("tones", there.storage).trials
    assert [t.state.name for t in before] == ["COMPLETE", "PRUNED", "FAIL"]
    assert before[2].user_attrs["outcome"] == "interrupted"
    assert before[0].datetime_complete == here.study().trials[0].datetime_complete

    there.run(4, launch=launch)
    here.run(4)
    assert outcomes(there) == outcomes(here)
    for place in (there, here):
        where = {"launch": launch} if place is there else {}
        place.run(4, only=place.revive(numbers=[1], **where).configs, **where)
        check_runs(place)
    assert outcomes(there) == outcomes(here)
    for config, trial in Tally.of(here.study().trials).latest.items():
        other = Tally.of(load_study("tones", there.storage).trials).latest[config]
        a, b = (
            read(
                trial_folder(p.workspace, "tones", t.user_attrs.get("root_trial", t.number), t.number)
                / "last.safetensors"
            )
            for p, t in ((here, trial), (there, other))
        )
        assert all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)
    tracker = Tracker(there.workspace)
    originals = {r.tags["original_run_id"] for r in tracker.runs() if "original_run_id" in r.tags}
    assert originals <= {r.run_id for r in Tracker(here.workspace).runs()}
    assert len(originals) == 4


def test_the_folder_moves(begun: Path, tmp_path: Path) -> None:
    """Begun in one folder, interrupted, moved, continued and revived there: all artifacts are there, none in the old place."""
    old, new = tmp_path / "old", tmp_path / "far" / "new"
    shutil.copytree(begun, old)
    Place(old, None).study()
    new.parent.mkdir()
    shutil.move(old, new)
    place = Place(new, None)
    place.run(3)
    place.run(3, only=place.revive().configs)
    assert all(r[0] == "COMPLETE" for r in outcomes(place).values())
    assert not old.exists()
    check_runs(place)


def test_another_name(there: Place, archive: Path) -> None:
    import_study(there.workspace, archive)
    import_study(there.workspace, archive, name="again", trust=True)
    assert study_names(there.storage) == ["again", "tones"]
    assert outcomes(there, "again") == outcomes(there)
    launch = Launch(there.workspace.root / "imported" / "again" / "tones.py", (), "again")
    there.run(3, launch=launch)
    check_runs(there, "again")
    check_runs(there)
    assert outcomes(there)[2][0] == "FAIL"


def test_a_study_that_is_here_is_not_written_over(here: Place, archive: Path) -> None:
    with pytest.raises(UserError, match=r"is here already.*--name.*--merge"):
        import_study(here.workspace, archive)


def test_data(begun: Path, there: Place, archive: Path, tmp_path: Path) -> None:
    """Without the corpus it is said; with --with-data it comes along; another corpus of that name is told apart."""
    shutil.rmtree(there.workspace.corpora)
    assert "is not here" in import_study(there.workspace, archive, name="one")[-1]
    forget_artifact_places()
    full = tmp_path / "full.tar"
    export_study(Place(begun, None).workspace, "tones", full, with_data=True)
    assert "taken from the archive" in import_study(there.workspace, full, name="two", trust=True)[-1]
    there.run(3, launch=Launch(there.workspace.root / "imported" / "two" / "tones.py", (), "two"))
    index = there.workspace.corpora / "tones" / "index.json"
    content = read_index(index.parent)
    del content["checksum"]  # as of an older version
    content["columns"]["fold"].reverse()
    index.write_text(json.dumps({**content, "digest": content_digest(content)}))
    assert "has other content" in import_study(there.workspace, archive, name="three")[-1]


# -- damage -------------------------------------------------------------------------------------------------------


def untouched(place: Place) -> None:
    assert study_names(place.storage) == []
    assert [p.name for p in place.workspace.root.iterdir() if p.name.startswith(".import")] == []
    assert not list(place.workspace.checkpoints.rglob("*.safetensors"))
    if place.workspace.mlflow_db.exists():
        assert Tracker(place.workspace).runs() == []


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.7, 0.97, 0.999])
def test_a_truncated_archive(there: Place, archive: Path, tmp_path: Path, part: float) -> None:
    cut = tmp_path / "cut.tar"
    data = archive.read_bytes()
    end = data.rstrip(b"\0")
    cut.write_bytes(end[: int(len(end) * part)])
    with pytest.raises(UserError, match=r"cut short|no archive|damaged"):
        import_study(there.workspace, cut)
    untouched(there)


def test_a_flipped_bit_anywhere(there: Place, archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    for k in range(1, 12):
        place = len(data.rstrip(b"\0")) * k // 12
        bad = tmp_path / "bad.tar"
        bad.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        into = tmp_path / f"into{k}"
        into.mkdir()
        if data[place] == 0 and _in_padding(archive, place):
            continue
        with pytest.raises(UserError, match=re.escape(str(bad))):
            read_archive(bad, into)


def _in_padding(archive: Path, place: int) -> bool:
    """Whether a byte lies between the end of a member and the next block, where nobody reads."""
    with tarfile.open(archive) as tar:
        return any(m.offset_data + m.size <= place < m.offset_data + -(-m.size // 512) * 512 for m in tar)


def _rebuilt(archive: Path, to: Path, extra: tarfile.TarInfo, content: bytes = b"x") -> Path:
    with tarfile.open(archive) as old, tarfile.open(to, "w") as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
            if member.name != "manifest.json" and extra.name:
                if extra.isreg():
                    extra.size = len(content)
                new.addfile(extra, io.BytesIO(content) if extra.isreg() else None)
                extra = tarfile.TarInfo("")
    return to


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../evil", tarfile.REGTYPE),
        ("/tmp/evil", tarfile.REGTYPE),
        ("checkpoints/../../evil", tarfile.REGTYPE),
        ("checkpoints//evil", tarfile.REGTYPE),
        ("checkpoints\\..\\evil", tarfile.REGTYPE),
        ("elsewhere/evil", tarfile.REGTYPE),
        ("checkpoints/link", tarfile.SYMTYPE),
        ("checkpoints/link", tarfile.LNKTYPE),
        ("checkpoints/pipe", tarfile.FIFOTYPE),
        ("study.json", tarfile.REGTYPE),
        ("checkpoints/00000/unlisted", tarfile.REGTYPE),
    ],
)
def test_what_no_archive_of_ours_holds_is_refused(
    there: Place, archive: Path, tmp_path: Path, name: str, kind: bytes
) -> None:
    extra = tarfile.TarInfo(name)
    extra.type, extra.linkname = kind, "/etc/passwd"
    bad = _rebuilt(archive, tmp_path / "bad.tar", extra)
    before = sorted(p.name for p in tmp_path.rglob("evil"))
    with pytest.raises(UserError, match=r"refused|not listed|damaged|no archive"):
        import_study(there.workspace, bad)
    assert sorted(p.name for p in tmp_path.rglob("evil")) == before == []
    untouched(there)


def test_other_files(there: Place, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        import_study(there.workspace, tmp_path / "nowhere.tar")
    (tmp_path / "text.tar").write_text("not a tar " * 400)
    with pytest.raises(UserError, match="no archive of a study"):
        import_study(there.workspace, tmp_path / "text.tar")
    untouched(there)


@pytest.mark.parametrize("killed", [False, True], ids=["error", "killed"])
def test_an_import_that_fails_half_way(
    there: Place, archive: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise Killed

    class Forgetful(list[Path]):
        def append(self, _: Path) -> None:
            """A killed process takes nothing back."""

    with monkeypatch.context() as patch:
        patch.setattr(study_import, "write_study", fail)
        if killed:
            patch.setattr(study_import, "discard", lambda *_: None)
            made = study_import._Import.__init__

            def forgetful(self: Any, *args: Any) -> None:
                made(self, *args)
                self.placed = Forgetful()

            patch.setattr(study_import._Import, "__init__", forgetful)
        with pytest.raises(Killed):
            import_study(there.workspace, archive)
    if killed:
        assert len(Tracker(there.workspace).runs()) == 4
    else:
        untouched(there)
    import_study(there.workspace, archive, trust=True)
    assert len(Tracker(there.workspace).runs()) == 4
    there.run(3, launch=Launch(there.workspace.root / "imported" / "tones" / "tones.py", (), "tones"))
    check_runs(there)


def test_exports_while_a_worker_runs_are_whole(here: Place, there: Place, tmp_path: Path) -> None:
    study = here.study()
    for lr in (2e-2, 3e-3):
        study.enqueue_trial({"lr": lr})
    thread = threading.Thread(target=here.run, args=(5,))
    thread.start()
    files = []
    while thread.is_alive() and len(files) < 6:
        files.append(tmp_path / f"{len(files)}.tar")
        export_study(here.workspace, "tones", files[-1])
        thread.join(0.3)
    thread.join()
    assert files
    for i, file in enumerate(files):
        into = tmp_path / f"into{i}"
        into.mkdir()
        read_archive(file, into)
        for last in into.glob("checkpoints/*/*/last.safetensors"):
            state = read(last).state
            assert (
                read(last.with_name(f"best-{state['best_epoch']:04d}.safetensors")).state["epoch"]
                == state["best_epoch"]
            )
        trials = json.loads((into / "study.json").read_text())["trials"]
        assert all(t["state"] != "RUNNING" for t in trials)
    import_study(there.workspace, files[len(files) // 2], trust=True)
    there.run(5, launch=Launch(there.workspace.root / "imported" / "tones" / "tones.py", (), "tones"))
    check_runs(there)
    one, two = outcomes(here), outcomes(there)
    assert one.keys() == two.keys()
    for config in one:  # what is pruned depends on which of two queued trials ends first, and that differs
        assert one[config][1] == two[config][1]
        assert all(two[config][3].get(epoch, value) == value for epoch, value in one[config][3].items())


# -- merging ------------------------------------------------------------------------------------------------------


def test_two_copies_that_both_went_on(here: Place, begun: Path, tmp_path: Path) -> None:
    """Ours finished the interrupted one and drew one; theirs finished it too, revived the pruned one and ran another."""
    shutil.copytree(begun, tmp_path / "other")
    other = Place(tmp_path / "other", None)
    other.enqueue(5e-3)
    other.run(5)
    other.run(5, only=other.revive(numbers=[1]).configs)
    file = tmp_path / "other.tar"
    export_study(other.workspace, "tones", file)
    here.run(4)
    mine, theirs = outcomes(here), outcomes(other)
    assert mine[2] == theirs[2]
    assert mine[3][1] != theirs[3][1]

    said = import_study(here.workspace, file, merge=True)
    assert (
        "2 configurations added (1 of them under a new index), 2 were the same on both sides, 1 had come further"
        in said[0]
    )
    merged = outcomes(here)
    assert merged == {0: mine[0], 1: theirs[1], 2: mine[2], 3: mine[3], 4: theirs[4], 5: theirs[3]}
    check_runs(here)
    status = study_status(here.study())
    assert (status.finished, status.running, status.waiting, status.revived) == (6, 0, 0, 1)
    numbers = [t.number for t in here.study().trials]
    assert numbers == list(range(len(numbers)))

    again = import_study(here.workspace, file, merge=True)
    assert "0 configurations added" in again[0]
    assert outcomes(here) == merged
    assert [t.number for t in here.study().trials] == numbers
    here.run(7)
    assert len(outcomes(here)) == 7
    check_runs(here)


def test_merging_is_refused_with_the_reason(here: Place, archive: Path) -> None:
    with pytest.raises(UserError, match=r"trials 2 are running\. Stop its workers"):
        import_study(here.workspace, archive, merge=True)
    here.queue().tidy()
    identity = here.study().user_attrs["audio_cls"]
    base = {**identity["base"], "training": {**identity["base"]["training"], "epochs": 9}}
    here.study().set_user_attr("audio_cls", {**identity, "base": base, "data": "other"})
    with pytest.raises(UserError) as error:
        import_study(here.workspace, archive, merge=True)
    assert "not copies of one study" in str(error.value)
    assert "base.training.epochs: here 9, in the archive 4" in str(error.value)
    assert "data: here 'other'" in str(error.value)


def _trial(
    number: int, state: str, x: float, config: int, curve: int = 0, born: int | None = None, **attrs: Any
) -> Any:
    from datetime import datetime, timedelta

    when = datetime(2030, 1, 1) + timedelta(minutes=number if born is None else born)
    return optuna.trial.FrozenTrial(
        number=number, state=TrialState[state], value=x if state in ("COMPLETE", "PRUNED") else None, datetime_start=when,
        datetime_complete=when, params={"x": x}, distributions={"x": FloatDistribution(0, 1)}, user_attrs={"config": config, "ready": True, **attrs},
        system_attrs={}, intermediate_values=dict.fromkeys(range(curve), x), trial_id=number,
    )  # fmt: skip


def test_joining_keeps_what_came_further() -> None:
    cut = {"outcome": "interrupted"}
    mine = [
        _trial(0, "COMPLETE", 0.1, 0, 4),
        _trial(1, "FAIL", 0.2, 1, 2, **cut),
        _trial(2, "WAITING", 0.2, 1, 2, resumed_from=1, root_trial=1),
    ]
    theirs = [
        _trial(0, "FAIL", 0.1, 0, 4, outcome="failed"),
        _trial(1, "FAIL", 0.2, 1, 2, **cut),
        _trial(2, "PRUNED", 0.2, 1, 3, resumed_from=1, root_trial=1),
    ]
    joined = join(mine, theirs)
    assert [t.state.name for t in joined.trials] == ["COMPLETE", "FAIL", "FAIL", "PRUNED"]
    assert joined.trials[2].user_attrs["outcome"] == "abandoned"
    assert joined.trials[3].user_attrs["root_trial"] == 1
    assert joined.place == {1: (1, 3)}
    assert (joined.same, joined.further, joined.added) == (1, 1, 0)
    back = join(theirs, mine)
    assert back.trials[3].state == TrialState.COMPLETE
    assert (back.same, back.further) == (1, 1)


def test_joining_never_clashes() -> None:
    """Any two histories: every index once, numbers without gaps, nothing finished is lost, and joining again adds nothing."""
    import random

    for seed in range(60):
        rng = random.Random(seed)
        common = [_trial(i, rng.choice(["COMPLETE", "PRUNED"]), rng.random(), i, 3) for i in range(rng.randrange(4))]

        def grown(start: int, common: list[Any] = common, rng: random.Random = rng) -> list[Any]:
            out = list(common)
            for i in range(rng.randrange(5)):
                x = rng.choice([0.5, rng.random()])
                out.append(
                    _trial(
                        len(out), rng.choice(["COMPLETE", "PRUNED", "WAITING"]), x, len(common) + i, 2, born=start + i
                    )
                )
            return out

        mine, theirs = grown(100), grown(200)
        joined = join(mine, theirs)
        assert [t.number for t in joined.trials] == list(range(len(joined.trials)))
        latest = Tally.of(joined.trials).latest
        finished = {(t.params["x"], t.state) for t in latest.values()}
        for trial in (*mine, *theirs):
            if trial.state == TrialState.COMPLETE:
                assert (trial.params["x"], TrialState.COMPLETE) in finished
        again = join(joined.trials, theirs)
        assert len(again.trials) == len(joined.trials)
        assert again.added == again.further == 0
