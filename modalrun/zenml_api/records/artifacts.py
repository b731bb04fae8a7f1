"""Read the visualizations that ZenML has stored with the artifacts of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from zenml.artifact_stores import BaseArtifactStore
from zenml.artifacts.utils import _load_file_from_artifact_store, load_artifact_store
from zenml.client import Client
from zenml.models import ArtifactVersionResponse, ArtifactVisualizationResponse
from zenml.utils import pagination_utils

from modalrun.run.artifacts import Artifact, Visualization
from modalrun.zenml_api.errors import first_line, translated
from modalrun.zenml_api.records.queries import get_run

LARGEST = 300_000
"""Bytes of one visualization that are read."""

LARGEST_IN_ALL = 700_000

_PAGE = 100


def with_visualizations(run_id: str, artifacts: Iterable[Artifact]) -> list[Artifact]:
    """Add to artifacts of a run what ZenML has stored to show of them; large ones are left out."""
    found = []
    left = LARGEST_IN_ALL
    with translated():
        # One request, though each artifact could be asked for what it has.
        versions = pagination_utils.depaginate(
            Client().list_artifact_versions,
            pipeline_run=run_id,
            project=get_run(run_id).project,
            hydrate=True,
            size=_PAGE,
        )
        stored = {(one.artifact.name, str(one.version)): one for one in versions}
        for artifact in artifacts:
            shown: list[Visualization] = []
            version = stored.get((artifact.name, artifact.version))
            for one in _visualizations(version) if version else ():
                fits = len(one.content) <= left
                shown.append(one if fits else _note("too large for this page"))
                left -= len(one.content) if fits else 0
            found.append(replace(artifact, visualizations=tuple(shown)))
    return found


def _visualizations(artifact: ArtifactVersionResponse) -> Iterator[Visualization]:
    stored = artifact.visualizations or []
    if not stored:
        return
    if artifact.artifact_store_id is None:
        yield _note("its artifact store was deleted")
        return
    try:
        store = load_artifact_store(artifact_store_id=artifact.artifact_store_id)
    except Exception as error:
        yield _note(first_line(error))
        return
    for one in stored:
        yield _read(one, store)


def _read(one: ArtifactVisualizationResponse, store: BaseArtifactStore) -> Visualization:
    try:
        content: bytes = _load_file_from_artifact_store(
            one.uri, store, mode="rb", length=LARGEST + 1
        )
    except Exception as error:
        # Any store, integration or server may fail in its own way; the rest can be shown.
        return _note(first_line(error))
    if len(content) > LARGEST:
        return _note(f"it has more than {LARGEST // 1000} kB")
    if one.type.value == "image":
        return Visualization("image", content)
    return Visualization(one.type.value, content.decode("utf-8", "replace"))


def _note(why: str) -> Visualization:
    return Visualization("note", f"Its visualization is not shown: {why}.")
