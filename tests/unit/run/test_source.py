"""The record of a source tree comes back as it was, and is small."""

from __future__ import annotations

import hashlib
import json

import pytest

from modalrun.run import source as module
from modalrun.run.source import MOST_FILES, Source
from modalrun.submit.source.changes import hashes_to_store

DIGEST = "0" * 64


def many(count: int) -> dict[str, str]:
    return hashes_to_store(
        {
            f"package/of_{n % 40}/module_{n}.py": hashlib.sha256(str(n).encode()).hexdigest()
            for n in range(count)
        }
    )


def test_it_comes_back_as_it_was() -> None:
    made = Source(DIGEST, {**many(3), "run.sh": "a" * 12 + "+x", "zoë\n..py": "b" * 12}, "/where")
    assert Source.from_metadata(json.loads(json.dumps(made.to_metadata()))) == made


def test_two_thousand_files_fit_into_one_value_of_metadata() -> None:
    made = Source(DIGEST, many(MOST_FILES))
    stored = made.to_metadata()
    assert list(stored) == ["modalrun_source_0"]
    assert Source.from_metadata(stored) == made


def test_a_record_that_does_not_fit_into_one_value_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PIECE", 100)
    made = Source(DIGEST, many(50))
    stored = made.to_metadata()
    assert len(stored) > 2
    assert Source.from_metadata({**stored, "other": 1}) == made


def test_no_record() -> None:
    assert Source.from_metadata({"modalrun_sandbox_id": "sb-1"}) is None
