"""Compute the key of a submission, and remember what it has led to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modalrun.spec.run_spec import RunSpec, load_spec
from modalrun.submit import fingerprint, plan_cache

SPEC = "pipeline: training.pipeline\ntarget: local\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "zenml"))
    (tmp_path / "zenml").mkdir()
    return tmp_path / "home"


def key(tmp_path: Path, text: str = SPEC) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return fingerprint.of_spec(load_spec(path))


def test_the_same_spec_has_the_same_key(tmp_path: Path) -> None:
    assert key(tmp_path) == key(tmp_path)


@pytest.mark.parametrize(
    "more", ["stack: other\n", "parameters: {a: 1}\n", "settings: {resources: {cpu_count: 2}}\n"]
)
def test_a_key_of_the_spec_changes_the_key(tmp_path: Path, more: str) -> None:
    assert key(tmp_path) != key(tmp_path, SPEC + more)


def test_an_override_changes_the_key(tmp_path: Path, load: Callable[..., RunSpec]) -> None:
    from modalrun.spec.overrides import set_option

    path = tmp_path / "run.yaml"
    path.write_text(SPEC, encoding="utf-8")
    overridden = load_spec(path, overrides=[set_option("enable_cache=false")])
    assert fingerprint.of_spec(overridden) != key(tmp_path)


def test_what_chooses_store_stack_and_account_changes_the_key(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [key(tmp_path)]
    (tmp_path / "zenml" / "config.yaml").write_text("active_stack_id: other\n")
    found.append(key(tmp_path))
    (tmp_path / ".zen").mkdir()
    (tmp_path / ".zen" / "config.yaml").write_text("active_stack_id: other\n")
    found.append(key(tmp_path))
    home.mkdir()
    (home / ".modal.toml").write_text("[other]\nactive = true\n")
    found.append(key(tmp_path))
    monkeypatch.setenv("TRAINING_DATA", "s3://other")
    found.append(key(tmp_path))
    assert len(set(found)) == len(found)


def test_another_terminal_has_the_same_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(tmp_path)
    monkeypatch.setenv("SHLVL", "7")
    monkeypatch.setenv("SSH_CONNECTION", "somewhere")
    assert key(tmp_path) == before


@pytest.mark.parametrize("place", ["", "~/"])
def test_a_changed_deployment_file_changes_the_key(tmp_path: Path, home: Path, place: str) -> None:
    home.mkdir()
    text = f"deployment: {place}compiled.json\ntarget: local\n"
    file = (home if place else tmp_path) / "compiled.json"
    file.write_text("{}")
    before = key(tmp_path, text)
    file.write_text("{ }")
    assert key(tmp_path, text) != before


def test_a_deployment_file_is_beside_the_run_spec_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "run.yaml").write_text("deployment: compiled.json\ntarget: local\n")
    (tmp_path / "link.yaml").symlink_to("shared/run.yaml")
    keys = set()
    for content in ("{}", "{ }"):
        (tmp_path / "shared" / "compiled.json").write_text(content)
        keys.add(fingerprint.of_spec(load_spec(tmp_path / "link.yaml")))
    assert len(keys) == 2


def test_an_entry_is_found_again_and_added_to() -> None:
    plan_cache.store("key", {"app": "one"})
    plan_cache.store("key", {"images": {"a": "im-1"}})
    assert plan_cache.load("key") == {"app": "one", "images": {"a": "im-1"}}
    assert plan_cache.load("other") == {}


def test_a_damaged_entry_is_none(home: Path) -> None:
    plan_cache.store("key", {"app": "one"})
    (file,) = home.rglob("key.json")
    for text in ("{", "[1]", ""):
        file.write_text(text)
        assert plan_cache.load("key") == {}


def test_only_the_newest_entries_are_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_cache, "MOST", 2)
    for number in range(4):
        plan_cache.store(str(number), {"number": number})
        (file,) = home.rglob(f"{number}.json")
        os.utime(file, (number, number))
    assert [plan_cache.load(str(number)) for number in range(4)] == [
        {},
        {},
        {"number": 2},
        {"number": 3},
    ]


def test_a_home_that_cannot_be_written_is_no_error(home: Path) -> None:
    home.write_text("a file")
    plan_cache.store("key", {"app": "one"})
    assert plan_cache.load("key") == {}
