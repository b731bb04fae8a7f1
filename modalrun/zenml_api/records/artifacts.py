"""Read the artifacts of a run, and the visualizations that ZenML has stored with them."""

from __future__ import annotations

from collections.abc import Iterator

from zenml.artifact_stores import BaseArtifactStore
from zenml.artifacts.utils import _load_file_from_artifact_store, load_artifact_store
from zenml.client import Client
from zenml.models import ArtifactVersionResponse, ArtifactVisualizationResponse
from zenml.utils import pagination_utils

from modalrun.run.artifacts import Artifact, Visualization
from modalrun.zenml_api.errors import first_line, translated

LARGEST = 300_000
"""Bytes of one visualization that are read."""

LARGEST_IN_ALL = 700_000

_PAGE = 100


def artifacts_of(run_id: str) -> list[Artifact]:
    """Return what the steps of a run have made, and what ZenML has stored to show of it.

    They are in the order of the steps' records. Large visualizations are left out.
    """
    found = []
    left = LARGEST_IN_ALL
    with translated():
        client = Client()
        # One request, though each artifact could be asked for what it has.
        stored = {
            one.id: one
            for one in pagination_utils.depaginate(
                client.list_artifact_versions, pipeline_run=run_id, hydrate=True, size=_PAGE
            )
        }
        steps = pagination_utils.depaginate(
            client.list_run_steps, pipeline_run_id=run_id, hydrate=True, size=_PAGE
        )
        for step in sorted(steps, key=lambda one: one.created):
            for output, versions in step.outputs.items():
                for version in versions:
                    shown: list[Visualization] = []
                    whole = stored.get(version.id, version)
                    for one in _visualizations(whole):
                        fits = len(one.content) <= left
                        shown.append(one if fits else _note("too large for this page"))
                        left -= len(one.content) if fits else 0
                    kind = version.data_type.attribute or version.data_type.module
                    name, number = version.artifact.name, str(version.version)
                    found.append(
                        Artifact(step.name, output, name, number, kind, version.uri, tuple(shown))
                    )
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
