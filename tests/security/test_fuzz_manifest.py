"""Whatever ZenML's metadata and the manifest's file hold, reading gives a value or one error."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modalrun.run import source as module
from modalrun.run.manifest import RunManifest
from modalrun.run.run_plan import PlannedStep, RunPlan, RunSettings
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.run.source import MOST_FILES, Source
from tests.security.growth import assert_linear

GOOD = Source("0" * 64, {"a/b.py": "1" * 12, "run.sh": "2" * 12 + "+x"}, "/somewhere")

text = st.text(st.characters(exclude_categories=()), max_size=40)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
path = text | st.lists(st.sampled_from(["..", ".", "", "a", "b.py", "\x00", "/"])).map("/".join)
documents = plain | st.fixed_dictionaries(
    {"digest": plain | st.just("0" * 64)},
    optional={"files": st.dictionaries(path, plain | st.just("1" * 12)), "root": plain},
)


def packed(document: Any) -> str:
    return base64.b85encode(zlib.compress(json.dumps(document).encode())).decode()


def read(metadata: dict[str, Any]) -> Source | None:
    """Read a record; the one error is a sentence in one line, without the values."""
    try:
        return Source.from_metadata(metadata)
    except ValueError as error:
        assert type(error) is ValueError
        assert str(error).startswith("the record of its files can't be read: ")
        assert str(error).isprintable()
        assert len(str(error)) < 300
    return None


def assert_harmless(found: Source | None) -> None:
    for name in found.files if found else ():
        assert not name.startswith("/")
        assert ".." not in PurePosixPath(name).parts


@given(documents)
@example({"digest": "0" * 64, "files": {"../a": "1" * 12}})
@example({"digest": "0" * 64, "files": {"/etc/passwd": "1" * 12}})
@example({"digest": "0" * 64, "files": {"a/../../b": "1" * 12}})
@example({"digest": "0" * 64, "files": {"": "1" * 12}})
@example({"digest": "0" * 64 + "\n"})
@example({"digest": "\ud800", "root": "\x1b]52;c;x\x07"})
def test_any_document(document: Any) -> None:
    assert_harmless(read({"modalrun_source_0": packed(document)}))


@given(st.lists(plain | st.binary(max_size=99).map(lambda raw: base64.b85encode(raw).decode())))
@example([10**5000])
@example([{}, "a"])
@example(["\ud800"])
def test_any_pieces(pieces: list[Any]) -> None:
    assert_harmless(read({f"modalrun_source_{n}": piece for n, piece in enumerate(pieces)}))


@given(st.data())
def test_a_record_with_some_characters_changed(data: st.DataObject) -> None:
    stored = list(GOOD.to_metadata()["modalrun_source_0"])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stored) - 1))
        stored[at] = data.draw(st.characters())
    assert_harmless(read({"modalrun_source_0": "".join(stored)}))


def test_a_small_record_that_becomes_a_huge_one(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 100_000
    monkeypatch.setattr(module, "MOST_BYTES", limit)
    bomb = packed({"digest": "0" * 64, "root": "x" * 50 * limit})
    assert len(bomb) < limit
    with pytest.raises(ValueError, match="can't be read: it is not what was stored"):
        Source.from_metadata({"modalrun_source_0": bomb})


def test_long_records_take_linear_time() -> None:
    def record(files: int) -> str:
        names = {f"{'d/' * 100}{n}.py": "1" * 12 for n in range(files)}
        return packed({"digest": "0" * 64, "files": names})

    assert_linear(lambda piece: Source.from_metadata({"modalrun_source_0": piece}), record, 400)


def test_too_many_files() -> None:
    files = {f"{n}.py": "1" * 12 for n in range(MOST_FILES + 1)}
    with pytest.raises(ValueError, match="can't be read: files: "):
        Source.from_metadata({"modalrun_source_0": packed({"digest": "0" * 64, "files": files})})


SANDBOX = SandboxSpec(("python",), "im-1", Resources(), 60)
MANIFEST = RunManifest(
    "run",
    RunPlan(
        "local",
        "p",
        RunSettings(app_name="a", mode="per_step"),
        SANDBOX,
        (PlannedStep("train", sandbox=SANDBOX),),
    ),
    "fail_fast",
)


def mutated(document: Any, data: st.DataObject) -> Any:
    """Replace one value, anywhere in a document."""
    if isinstance(document, dict) and document and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(document)))
        return {**document, key: mutated(document[key], data)}
    if isinstance(document, list) and document:
        return [mutated(document[0], data), *document[1:]]
    return data.draw(plain)


@given(st.data())
def test_a_manifest_with_another_value(data: st.DataObject) -> None:
    document = mutated(json.loads(MANIFEST.to_json()), data)
    try:
        found = RunManifest.from_json(json.dumps(document))
    except ValueError as error:
        assert type(error) is ValueError
        assert str(error).startswith("the manifest can't be read: ")
    else:
        assert RunManifest.from_json(found.to_json()) == found


@given(text | st.binary(max_size=99).map(lambda raw: raw.decode("utf-8", "surrogateescape")))
@example("[" * 100_000)
@example('{"run_id":' * 10_000)
def test_any_file_as_a_manifest(content: str) -> None:
    with pytest.raises(ValueError, match="the manifest can't be read: ") as caught:
        RunManifest.from_json(content)
    assert type(caught.value) is ValueError
