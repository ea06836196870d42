"""`study import`: an archive becomes a study here, all of it or nothing; or is joined with its copy."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from audio_cls.core.errors import UserError
from audio_cls.core.names import check_name
from audio_cls.core.trust import ensure_trusted, imported_folder, write_imported
from audio_cls.core.workspace import Workspace
from audio_cls.queue.places import trial_folder
from audio_cls.queue.record import record_of
from audio_cls.queue.storage import IDENTITY, StudyStorage, load_study, open_storage, study_names
from audio_cls.study.launches import LAUNCH
from audio_cls.study.transfer.archive import read_archive
from audio_cls.study.transfer.carried_weights import place_weights
from audio_cls.study.transfer.contents import read_contents
from audio_cls.study.transfer.exporting import PLAIN_NAME, RUN, runs_of
from audio_cls.study.transfer.merge import Joined, identity_difference, join
from audio_cls.study.transfer.portable import study_to_json
from audio_cls.study.versions import VERSION
from audio_cls.study.writing import tidy_leftovers, write_study
from audio_cls.tracking import Tracker
from audio_cls.tracking.copy import discard, make_run, purge, settle, supersede

__all__ = ["import_study"]


def import_study(
    workspace: Workspace,
    file: Path,
    *,
    name: str | None = None,
    merge: bool = False,
    storage: str | None = None,
    trust: bool = False,
) -> list[str]:
    """Import a study. On an error, or after a kill and the same command again, nothing stays half done.

    Args:
        trust: let the Python files that it brings be run (`trust.ensure_trusted`).

    Returns:
        What was done, in lines.

    Raises:
        UserError: for an archive that is damaged or not ours; a study of that name (without `merge`); copies that cannot be merged.
    """
    if name is not None:
        check_name(name, "a study")
    workspace.root.mkdir(parents=True, exist_ok=True)
    with workspace.lock("import"):
        for left in workspace.root.glob(".import-*"):
            shutil.rmtree(left, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=".import-", dir=workspace.root))
        try:
            manifest = read_archive(file, staging)
            return _Import(workspace, file, staging, manifest, name, storage, trust).run(merge)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


class _Import:
    """One import: looks at everything first, then corpora, runs, checkpoints, and at last the study, which makes it count."""

    def __init__(
        self,
        workspace: Workspace,
        file: Path,
        staging: Path,
        manifest: dict[str, Any],
        name: str | None,
        storage: str | None,
        trust: bool = False,
    ) -> None:
        self.workspace, self.file = workspace, file
        self.contents = read_contents(file, staging, manifest)
        self.study, self.trials = self.contents.study, self.contents.trials
        self.name = check_name(name or self.study["name"], "a study")
        self.storage = storage
        self.trust = trust
        self.tracker = Tracker(workspace)
        self.runs: list[str] = []
        self.placed: list[Path] = []
        self.said: list[str] = []

    def run(self, merge: bool) -> list[str]:
        where = open_storage(self.storage or self.workspace.optuna_db)
        with where.lock(self.name):
            tidy_leftovers(where, self.name)
            exists = self.name in study_names(where)
            if exists and not merge:
                raise UserError(
                    f"study {self.name!r} is here already, in {where.shown}. Take the archive in under another name (--name), or "
                    "join the two (--merge), if they are copies of one study"
                )
            joined = self._joined(where) if exists else Joined(self.trials, {t.number: t.number for t in self.trials})
            mine = runs_of(study_to_json(load_study(self.name, where))) if exists else ()
            purge(self.tracker, self.name, keep=set(mine))
            corpus = self._corpus()
            self.said += place_weights(self.workspace, self.contents.weights, self.study)
            try:
                attrs = self._place(where, joined, exists)
                write_study(where, self.name, self.study["direction"], attrs, joined.trials, replaces=exists)
                self._mark.unlink(missing_ok=True)
            except BaseException:
                discard(self.tracker, self.runs)
                for path in self.placed:
                    shutil.rmtree(path, ignore_errors=True)
                raise
        settle(self.tracker, self.runs)
        for trial in joined.replaced:
            old, new = record_of(trial).mlflow_run_id, self._run_after(joined, trial)
            if old and new and old != new:
                supersede(self.tracker, old, new)
        what = f"merged: {joined.summary()}" if exists else f"{len(joined.trials)} trials"
        return [f"study {self.name}: {what}, {len(self.runs)} runs", *self.said, corpus]

    def _joined(self, where: StudyStorage) -> Joined:
        """Ours and theirs as one; refused where they are not the same study, or ours is running."""
        ours = load_study(self.name, where)
        here, there = ours.user_attrs.get(IDENTITY), self.study["attrs"].get(IDENTITY)
        if here is None or there is None or (differ := identity_difference(here, there)):
            lines = "\n  ".join(differ if here and there else ["one of them does not say what it was begun by"])
            raise UserError(f"study {self.name!r} and the one in {self.file} are not copies of one study:\n  {lines}")
        trials = ours.get_trials(deepcopy=False)
        running = ", ".join(str(t.number) for t in trials if t.state.name == "RUNNING")
        if running:
            raise UserError(
                f"study {self.name!r}: trials {running} are running. Stop its workers (Ctrl-C; they checkpoint and leave), "
                "merge, and start them again; if none is running, `study run` and Ctrl-C gives dead workers' trials back"
            )
        return join(trials, self.trials)

    def _place(self, where: StudyStorage, joined: Joined, exists: bool) -> dict[str, Any]:
        """Runs and checkpoints to their places, their new ids into the trials; the attributes of the study."""
        mine = load_study(self.name, where).user_attrs if exists else {}
        parent = mine.get(RUN) or self._make_run(self.study["attrs"].get(RUN), None)
        made: dict[str, str | None] = {}
        for number in joined.taken:
            trial = joined.trials[number]
            run = record_of(trial).mlflow_run_id
            if run is not None:
                if run not in made:
                    made[run] = self._make_run(run, parent)
                trial.user_attrs = {k: v for k, v in trial.user_attrs.items() if k != RUN}
                if made[run]:
                    trial.user_attrs[RUN] = made[run]
        self._checkpoints(joined, exists)
        attrs = {**self.study["attrs"], **mine}
        if exists and LAUNCH not in mine:
            attrs.pop(LAUNCH, None)  # an archive does not choose which file of this machine is run
        if parent:
            attrs[RUN] = parent
        elif RUN in attrs:
            del attrs[RUN]
        if not exists:
            if self.name != self.study["name"]:
                attrs.pop(VERSION, None)
            self._sources(attrs)
        return attrs

    def _make_run(self, run_id: str | None, parent: str | None) -> str | None:
        if run_id not in self.contents.runs:
            return None
        record, artifacts = self.contents.runs[run_id]
        tags = {"study": self.name} if "study" in record["tags"] else {}
        if self.name != self.study["name"]:
            record = {**record, "name": record["name"].replace(self.study["name"], self.name, 1)}
        run = make_run(self.tracker, record, artifacts, parent, self.name, tags)
        self.runs.append(run)
        return run

    @property
    def _mark(self) -> Path:
        """There while an import is under way: what is beside it belongs to no study yet."""
        return trial_folder(self.workspace, self.name, 0, 0).parents[1] / ".importing"

    def _checkpoints(self, joined: Joined, exists: bool) -> None:
        """Checkpoints under the trials' numbers here."""
        base = self._mark.parent
        if not exists:
            if base.exists():
                if not self._mark.exists() and any(base.iterdir()):
                    raise UserError(
                        f"{base}: checkpoints of a study {self.name!r} that is not here; move them away, or use --name"
                    )
                shutil.rmtree(base)
            base.mkdir(parents=True)
            self._mark.touch()
            self.placed.append(base)
        for root, number, folder in self.contents.checkpoints:
            if exists:
                if root not in joined.place:
                    continue
                root, number = joined.place[root]
            target = trial_folder(self.workspace, self.name, root, number)
            shutil.rmtree(target, ignore_errors=True)  # of an import that was killed: no trial here has this number
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(folder, target)
            self.placed.append(target)

    def _corpus(self) -> str:
        """See to the data: take it from the archive where it is missing here; what is reported of it."""
        from audio_cls.data.views import view_of
        from audio_cls.runs.preparation import open_corpus

        name, digest, packed = self.contents.corpus, self.contents.digest, self.contents.packed
        if not re.fullmatch(PLAIN_NAME, name):
            return f"its corpus lies outside a workspace ({name!r}): the same path must hold the same data here"
        if (self.workspace.corpora / name).exists():
            found = view_of(open_corpus(self.workspace, name), {"labels": self.contents.labels}).digest
            if found == digest:
                return f"go on with: audio-cls study run {self.name} --trials N"
            return (
                f"the corpus {name!r} here has other content (digest {found[:12]}) than the study was begun on ({digest[:12]}): it "
                "can be looked at, not continued, until that corpus is here"
            )
        if packed is not None:
            self.workspace.corpora.mkdir(parents=True, exist_ok=True)
            os.rename(packed, self.workspace.corpora / name)
            self.placed.append(self.workspace.corpora / name)
            return f"corpus {name} taken from the archive; go on with: audio-cls study run {self.name} --trials N"
        return (
            f"the corpus {name!r} (digest {digest[:12]}) is not here: prepare it (audio-cls data prepare), or export with --with-data; "
            f"then go on with: audio-cls study run {self.name} --trials N"
        )

    def _sources(self, attrs: dict[str, Any]) -> None:
        """Put the study's file and its neighbours into a folder of their own, where they wait to be trusted."""
        launch: dict[str, Any] = attrs.pop(LAUNCH, None) or {}
        if not self.contents.sources:
            self.said.append("its file is not in the archive: give it to `study run`")
            return
        self.placed.append(imported_folder(self.workspace, self.name))
        files = write_imported(self.workspace, self.name, self.contents.sources)
        main = imported_folder(self.workspace, self.name) / PurePosixPath(launch["file"].replace("\\", "/")).name
        attrs[LAUNCH] = {**launch, "file": main.relative_to(self.workspace.root).as_posix()}
        if self.trust:
            ensure_trusted(main, trust=True)
            self.said.append("its Python files, which you agreed to run:")
        else:
            self.said.append("its Python files, to read before `study run --trust` runs them:")
        self.said += [f"  {file}" for file in files]

    def _run_after(self, joined: Joined, trial: Any) -> str | None:
        after = [t for t in joined.trials if record_of(t).resumed_from == trial.number and t.number in joined.taken]
        return record_of(after[-1]).mlflow_run_id if after else None
