"""Parts of the user's own (a model, a loss, ...): the files that declare them are kept, so that recorded runs find them again.

A workspace keeps a copy of each file that declared a part of a run made here, with the neighbours that the file imported, in
`.sources/DIGEST/`. Whatever reads a recorded experiment goes through `recorded`: a kind that no loaded file declares is looked up
there. Nothing but what has run in this workspace, at its user's command, is in there, so a run that came from elsewhere never
runs its code unasked: its file must be named with `--with FILE`, or its study trusted (`study run NAME --trust`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from audio_cls.core.config import Component, ConfigError
from audio_cls.core.errors import UserError
from audio_cls.core.loading import load_file
from audio_cls.core.workspace import Workspace, atomic_write
from audio_cls.metrics.base import Metric, plain_name
from audio_cls.runs.part_files import (
    Source,
    all_parts,
    entry_of,
    is_own,
    part_name,
    parts_of,
    sha256,
    source_at,
    write_folder,
)

if TYPE_CHECKING:
    from audio_cls.experiment import Experiment
    from audio_cls.tracking import Run, RunInfo, Tracker

__all__ = [
    "DIGEST_TAG",
    "Source",
    "entry_files",
    "homeless",
    "load_with",
    "own_parts",
    "read_recorded",
    "record_sources",
    "recorded",
    "recorded_experiment",
    "remember",
    "sources_of",
]

DIGEST_TAG = "source.digest"  # of a run in MLflow: the digests of its sources
META = "source.json"
INSTALLED = "audio_cls.components"  # the group of entry points by which an installed package names modules with parts
FIGURE = "figure "  # how the names of figures begin
log = logging.getLogger(__name__)
T = TypeVar("T")


# -- what an experiment is made of ---------------------------------------------------------------------------------


def own_parts(experiment: Component) -> dict[str, type[Component]]:
    """Return the parts of an experiment that audio_cls does not have itself, by name (`model tiny`); with the metric that
    it is judged by, and the figures of the user's own that were loaded for its page.
    """
    classes = [type(part) for part in parts_of(experiment)]
    metric = str(getattr(getattr(experiment, "training", None), "metric", ""))
    classes += [member for kind, member in Metric.members().items() if kind == plain_name(metric)]
    classes += [member for member in all_parts() if part_name(member).startswith(FIGURE)]
    return {part_name(cls): cls for cls in classes if is_own(cls)}


def sources_of(experiment: Component) -> list[Source]:
    """Return the files that declare the own parts of an experiment, each once. A part without a file is left out; see
    `homeless`.
    """
    found: dict[Path, Source] = {}
    for cls in own_parts(experiment).values():
        entry = entry_of(cls)
        if entry is not None and entry not in found:
            found[entry] = source_at(entry)
    return list(found.values())


def homeless(experiment: Component) -> list[str]:
    """Return the own parts of an experiment that no file declares (they were typed into a notebook, say)."""
    return [name for name, cls in own_parts(experiment).items() if entry_of(cls) is None]


def entry_files(experiments: Iterable[Component]) -> list[Path]:
    """Return the files that a worker process must load to run these experiments, each once."""
    return list(dict.fromkeys(source.file for experiment in experiments for source in sources_of(experiment)))


# -- written -------------------------------------------------------------------------------------------------------


def record_sources(experiment: Component, run: Run, workspace: Workspace, files: Sequence[Path] = ()) -> None:
    """Store the files of a run with it (artifacts `source/...`, the tag `source.digest`), and remember them in the workspace.

    `files` are stored even if they declare no part. Never raises: a source that cannot be read or kept costs no run.
    """
    for name in homeless(experiment):
        log.warning(
            "%s has no file: it cannot be found again when this run is evaluated. Put it into a .py file.", name
        )
    try:
        sources = sources_of(experiment)
    except OSError as error:
        log.warning("the files of the run's own parts cannot be read: %s", error)
        sources = []
    stored: set[str] = set()
    for source in sources:
        for name, text in source.texts.items():
            place = f"source/{name}" if f"source/{name}" not in stored else f"source/{source.digest[:8]}/{name}"
            stored.add(place)
            run.artifact_text(place, text)
    for file in files:
        if f"source/{file.name}" not in stored:
            run.artifact(file, "source")
    if sources:
        run.tags({DIGEST_TAG: ",".join(source.digest for source in sources)})
        remember(workspace, sources)


def remember(workspace: Workspace, sources: Iterable[Source]) -> None:
    """Keep copies of files that this workspace's user has run; a workspace that cannot be written to is left as it is."""
    for source in sources:
        folder = workspace.sources / source.digest
        meta = {"file": str(source.file), "main": source.main, "files": sorted(source.texts), "parts": source.parts}
        text = json.dumps({**meta, "ran": time.time()}, indent=1)
        try:
            if not folder.exists():
                write_folder(folder, {**source.texts, META: text})
            elif source.file.parent != folder:
                atomic_write(folder / META, text)
        except OSError as error:
            log.warning("%s was not kept in %s: %s", source.file, workspace.sources, error)


def load_with(workspace: Workspace, files: Iterable[Path]) -> None:
    """Load files that the user named on the command line, and remember those that declare parts: they have run here."""
    for file in files:
        load_file(file)
        source = source_at(file.resolve())
        remember(workspace, [source] if source.parts else [])


# -- found again ---------------------------------------------------------------------------------------------------


def recorded(
    build: Callable[[], T],
    workspace: Workspace,
    digests: Sequence[str] = (),
    files: Sequence[Path] = (),
    where: str = "",
) -> T:
    """Build something from what was recorded. Where it names a kind that no loaded file declares, the file that declared it when
    it was recorded is loaded first: the original where it has not changed, else the workspace's copy.

    Args:
        build: parses the record; called again after a file was loaded.
        digests: of the sources that the record names. Without any, the newest source that declares the kind is taken.
        files: what to try where the workspace has no copy (it was made by an earlier version): files of the user's own.
        where: what is read, for messages.

    Raises:
        UserError: where a kind is unknown and its file is not known here, or was never run here.
    """
    tried: set[str] = set()
    while True:
        try:
            return build()
        except ConfigError as error:
            missing = [f"{family} {kind}" for family, kind in error.unknown]
            fresh = [name for name in missing if name not in tried]
            if not fresh:
                raise
            tried.update(fresh)
            for name in fresh:
                _load_declaring(name, workspace, digests, files, where, error)


def recorded_experiment(tracker: Tracker, info: RunInfo) -> Experiment:
    """Return the experiment of a run, with the parts that it was made of.

    Raises:
        UserError: for a run without an experiment, a damaged one, or one whose parts are not known here.
    """
    from audio_cls.experiment import Experiment

    where = f"run {info.name} ({info.run_id[:8]})"
    path = tracker.download(info.run_id, "experiment.json")
    text = read_recorded(path, info.tags.get("experiment.digest"))
    digests = [d for d in info.tags.get(DIGEST_TAG, "").split(",") if d]
    experiment = recorded(lambda: Experiment.from_json(text, str(path)), tracker.workspace, digests, where=where)
    _load_figures(tracker.workspace, digests)
    _warn_if_changed(experiment, tracker.workspace, digests, where)
    return experiment


def _load_figures(workspace: Workspace, digests: Sequence[str]) -> None:
    """Load the figures that a run was recorded with: its experiment does not name them."""
    for source in _remembered(workspace) if digests else ():
        known = {part_name(part) for part in all_parts()}
        missing = [part for part in source.parts if part.startswith(FIGURE) and part not in known]
        if source.digest in digests and missing:
            _load(source, missing[0], workspace)


def _load_installed(part: str) -> bool:
    """Load the modules that installed packages name, and return whether one of them declares a part."""
    for entry in entry_points(group=INSTALLED):
        try:
            entry.load()
        except Exception as error:
            log.warning("the installed %s (%s) cannot be loaded: %s", entry.name, entry.value, error)
    return part in {part_name(known) for known in all_parts()}


def _for_digest(data: Any) -> Any:
    """Return what the digest of a recorded experiment is taken of, as `Component.digest` does: parts of the user's own are not loaded yet."""
    model = data.get("model") if isinstance(data, dict) else None
    weights = model.get("weights") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(weights, dict) or not weights.get("sha256"):
        return data
    return {**data, "model": {**model, "weights": {k: v for k, v in weights.items() if k != "file"}}}


def read_recorded(path: Path, digest: str | None = None) -> str:
    """Return the text of a run's `experiment.json`; with the digest that was recorded of it, checked.

    Raises:
        UserError: for a file that is not UTF-8 or JSON, or that has changed since it was written.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
        canonical = json.dumps(_for_digest(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not an experiment in JSON: {error}") from None
    found = hashlib.sha256(canonical).hexdigest()
    if digest is not None and found != digest:
        raise UserError(
            f"{path}: damaged or changed since the run: its digest is {found[:12]}, the run recorded {digest[:12]}"
        )
    return text


def _load_declaring(
    part: str, workspace: Workspace, digests: Sequence[str], files: Sequence[Path], where: str, error: ConfigError
) -> None:
    if _load_installed(part):
        return
    known = [source for source in _remembered(workspace) if part in source.parts]
    wanted = [source for source in known if source.digest in digests] if digests else known
    if wanted:
        _load(wanted[0], part, workspace)
        return
    for file in files:
        if file.is_file():
            load_file(file)
            return
    family, _, kind = part.partition(" ")
    where = f"{where}: " if where else ""
    if digests:
        raise ConfigError(
            f"{where}the {family} {kind!r} is declared by a file that came with the record and was never run in this workspace "
            f"(digest {', '.join(d[:12] for d in digests)}); it is not run unasked. Read it (the run's artifacts source/), then "
            "name it with --with FILE; for an imported study: audio-cls study run NAME --trust"
        )
    raise ConfigError(
        f"{error}\nNo file that was run in this workspace declares {part!r}: name the file that does with --with FILE"
    )


def _load(source: Source, part: str, workspace: Workspace) -> None:
    """Load the original of a source if it is what it was, else the copy."""
    state = _compare(source)
    if state == "same":
        load_file(source.file)
        return
    copy = workspace.sources / source.digest / source.main
    if state == "changed":
        log.warning(
            "%s has changed since it was run: %s is taken from the copy that was recorded (%s). --with %s takes it as it is now.",
            source.file, part, copy, source.file,
        )  # fmt: skip
    load_file(copy)


def _compare(source: Source) -> str:
    """Whether the original of a source is the `same`, has `changed`, or is `gone`."""
    try:
        for name, text in source.texts.items():
            if (source.file.parent / name).read_text(encoding="utf-8", errors="replace") != text:
                return "changed"
    except OSError:
        return "changed" if source.file.is_file() else "gone"
    return "same"


def _remembered(workspace: Workspace) -> list[Source]:
    """Return the sources of a workspace, those that ran last first. Copies that are damaged or were changed are left
    out.
    """
    found: list[tuple[float, Source]] = []
    for meta in workspace.sources.glob(f"*/{META}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            stored = json.loads(meta.read_text(encoding="utf-8"))
            texts = {str(n): (meta.parent / str(n)).read_text(encoding="utf-8") for n in stored["files"]}
            source = Source(Path(stored["file"]), stored["main"], texts, tuple(stored["parts"]))
            if source.main in texts and source.digest == meta.parent.name:
                found.append((float(stored["ran"]), source))
    return [source for _, source in sorted(found, key=lambda pair: -pair[0])]


def _warn_if_changed(experiment: Component, workspace: Workspace, digests: Sequence[str], where: str) -> None:
    """Say it where a part comes from another version of its file than the run was made with."""
    if not digests:
        return
    were = {sha256(text) for s in _remembered(workspace) if s.digest in digests for text in s.texts.values()}
    for source in sources_of(experiment) if were else ():
        if sha256(source.texts.get(source.main, "")) not in were:
            log.warning("%s: %s is not what it was when the run was made", where, source.file)
