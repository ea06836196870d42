"""MLflow's registry of models: names that people call a model by, their versions, and aliases such as `champion`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError, choices
from audio_cls.tracking.models import DATA, find_model, is_ready
from audio_cls.tracking.notes import NOTE
from audio_cls.tracking.reads import pages, readable
from audio_cls.tracking.tracker import Tracker

__all__ = [
    "ALIAS",
    "ModelVersion",
    "check_alias",
    "find_version",
    "is_reference",
    "logged_model_id",
    "model_files",
    "model_versions",
    "register_model",
    "valid_name",
]

ALIAS = "champion"
_PREFIX = "models:/"
_VERSIONS = "mlflow.modelVersions"  # tag of a logged model


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model.

    Attributes:
        created: seconds since 1970.
        source: where its files are, as MLflow says it.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str
    created: float
    source: str

    @property
    def reference(self) -> str:
        """How it is called: NAME@ALIAS, or NAME/VERSION without an alias."""
        return f"{self.name}@{self.aliases[0]}" if self.aliases else f"{self.name}/{self.version}"


def is_reference(text: str) -> bool:
    """Return whether a text can only mean a registered model: NAME@ALIAS, or MLflow's models:/NAME@ALIAS, models:/NAME/VERSION."""
    return text.startswith(_PREFIX) or re.fullmatch(r"[^@/]+@[\w-]+", text) is not None


def valid_name(text: str) -> str:
    """Return a name that the registry takes: `/` and `:` become `-`."""
    return re.sub(r"[/:]", "-", text)


def check_alias(alias: str) -> str:
    """Return an alias as it is.

    Raises:
        UserError: for one that MLflow does not take.
    """
    if re.fullmatch(r"(?!v\d+$)(?!latest$)[A-Za-z0-9_-]{1,255}", alias) is None:
        raise UserError(
            f"the alias {alias!r} is none. Allowed: letters, digits, _ and -, but not latest, nor v with a number (v1)"
        )
    return alias


def model_versions(tracker: Tracker, name: str | None = None) -> list[ModelVersion]:
    """Return the versions of all registered models, or of one, by name, the newest first."""
    with readable(tracker.uri):
        client = tracker._readable()
        models = [m for m in pages(client.search_registered_models) if name is None or m.name == name]
        found = []
        for model in models:
            quoted = model.name.replace("'", "''")
            found += [_version(v, model.aliases) for v in pages(client.search_model_versions, f"name = '{quoted}'")]
    return sorted(found, key=lambda v: (v.name, -v.version))


def find_version(tracker: Tracker, reference: str) -> ModelVersion:
    """Return the version that NAME@ALIAS, NAME/VERSION or NAME means; a name alone its champion, else its newest version.

    Raises:
        UserError: when there is none.
    """
    text = reference.removeprefix(_PREFIX)
    name, at, alias = text.partition("@")
    number = ""
    if not at and re.search(r"/\d+$", text):
        name, _, number = text.rpartition("/")
    every = model_versions(tracker)
    versions = [v for v in every if v.name == name]
    if not versions:
        known = sorted({v.name for v in every})
        raise UserError(
            f"no registered model {name!r}. {choices(name, known) if known else 'None is: audio-cls promote RUN'}"
        )
    if at:
        aliases = {a: v for v in versions for a in v.aliases}
        if alias not in aliases:
            raise UserError(f"the model {name!r} has no alias {alias!r}. {choices(alias, aliases)}")
        return aliases[alias]
    if number:
        if int(number) not in [v.version for v in versions]:
            listed = ", ".join(str(v.version) for v in reversed(versions))
            raise UserError(f"the model {name!r} has no version {number}. There are: {listed}")
        return next(v for v in versions if v.version == int(number))
    return next((v for v in versions if ALIAS in v.aliases), versions[0])


def logged_model_id(tracker: Tracker, run_id: str) -> str | None:
    """Return the id of a run's model in MLflow; None while it has none that is ready."""
    with readable(tracker.uri):
        client = tracker._readable()
        model = find_model(client, client.get_run(run_id))
        return str(model.model_id) if model is not None and is_ready(model) else None


def register_model(
    tracker: Tracker, name: str, run_id: str, alias: str, tags: Mapping[str, str], description: str = ""
) -> ModelVersion:
    """Register a run's model as the next version of `name` (or find the version that it is already) and move the alias to it.

    Args:
        tags: of the version.
        description: of the version, in Markdown.

    Raises:
        UserError: for a run without a model, or a server that cannot be asked.
    """
    model_id = logged_model_id(tracker, run_id)
    if model_id is None:
        raise UserError(f"the run {run_id} has no model in MLflow: it could not be sent")
    with readable(tracker.uri):
        client = tracker._readable()
        model = client.get_logged_model(model_id)
        _create_name(client, name, model.tags.get("task", ""))
        quoted = name.replace("'", "''")
        present = pages(client.search_model_versions, f"name = '{quoted}'")
        source = model.artifact_location  # MLflow looks models:/ID up in its default database
        version = next((v for v in present if v.source == source), None)
        if version is None:
            text = "\n\n".join(part for part in (description, model.tags.get(NOTE)) if part)
            version = client.create_model_version(
                name, source, run_id, tags=dict(tags), description=text, model_id=model_id, await_creation_for=0
            )
            _show_version(client, model, version)
        client.set_registered_model_alias(name, alias, str(version.version))
        found = client.get_registered_model(name)
        return _version(client.get_model_version(name, str(version.version)), found.aliases)


def model_files(tracker: Tracker, version: ModelVersion, scratch: Path) -> Path:
    """Return the folder with a version's files (weights, classes, experiment): where it lies, or fetched into `scratch`.

    Raises:
        UserError: for a model that audio_cls did not make, or whose files are gone.
    """
    with readable(tracker.uri):
        client = tracker._readable()
        if version.source.startswith(("/", "file://")):
            folder = Path(version.source.removeprefix("file://")) / DATA
        else:
            from mlflow.artifacts import download_artifacts

            uri = f"{client.get_model_version_download_uri(version.name, str(version.version))}/{DATA}"
            folder = Path(download_artifacts(uri, dst_path=str(scratch), tracking_uri=tracker.uri))
    if not folder.is_dir():
        raise UserError(
            f"the model {version.reference} has no {folder}: its files are gone, or audio-cls promote did not register it"
        )
    return folder


def _show_version(client: Any, model: Any, version: Any) -> None:
    """Show on the page of a logged model that it is registered, as MLflow's `register_model` does."""
    shown = json.loads(model.tags.get(_VERSIONS, "[]"))
    shown.append({"name": version.name, "version": str(version.version)})
    client.set_logged_model_tags(model.model_id, {_VERSIONS: json.dumps(shown)})


def _create_name(client: Any, name: str, task: str) -> None:
    about = f"An audio classifier ({task}). Label files: `audio-cls predict {name}@{ALIAS} FILES`."
    try:
        client.create_registered_model(name, description=about)
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
            raise


def _version(version: Any, aliases: Mapping[str, Any]) -> ModelVersion:
    mine = [alias for alias, number in aliases.items() if str(number) == str(version.version)]
    return ModelVersion(
        name=version.name,
        version=int(version.version),
        aliases=tuple(sorted(mine, key=lambda a: (a != ALIAS, a))),
        run_id=version.run_id or "",
        created=version.creation_timestamp / 1000,
        source=version.source or "",
    )
