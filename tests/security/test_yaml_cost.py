"""A run spec of any size and form is read, or refused by name, in linear time."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.spec import yaml_nodes
from modalrun.spec.overrides import param_option
from modalrun.spec.run_spec import load_spec
from modalrun.spec.yaml_nodes import MAX_DIGITS, MAX_LENGTH

LEVELS = 60
"""2^60 steps would never end."""

NODES = 5_000


@pytest.fixture(autouse=True)
def _few_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach the limit sooner: reading as many as are allowed takes seconds."""
    monkeypatch.setattr(yaml_nodes, "MAX_NODES", NODES)


def refusal(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_spec(path)
    assert str(path) in caught.value.message
    assert len(caught.value.message) < 1000
    return caught.value.message


def doubled(line: str) -> str:
    """Each level holds the one before it twice."""
    return "".join(line.format(n=n, below=n - 1) for n in range(1, LEVELS))


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 {x: 1}\n" + doubled("a{n}: &a{n} {{<<: [*a{below}, *a{below}]}}\n"),
        "a0: &a0 {x: 1}\n" + doubled("a{n}: &a{n} {{p{n}: *a{below}, <<: *a{below}}}\n"),
        "a0: &a0 [x]\n" + doubled("a{n}: &a{n} [*a{below}, *a{below}]\n"),
        "a0: &a0 {x: 1}\n" + doubled("a{n}: &a{n} {{p: *a{below}, q: *a{below}}}\n"),
    ],
    ids=["merged twice", "merged and held", "lists", "mappings"],
)
def test_aliases_that_double_at_each_level(tmp_path: Path, text: str) -> None:
    assert "once its aliases are followed" in refusal(tmp_path, text)


def test_a_mapping_that_is_merged_very_often(tmp_path: Path) -> None:
    keys = ", ".join(f"k{n}: 1" for n in range(NODES // 2))
    text = f"x-a: &a {{{keys}}}\nextra: {{<<: [{', '.join(['*a'] * 20_000)}]}}\n"
    assert "once its aliases are followed" in refusal(tmp_path, text)


def test_a_key_that_doubles_at_each_level(tmp_path: Path) -> None:
    text = "a0: &a0 [x]\n" + doubled("a{n}: &a{n} [*a{below}, *a{below}]\n")
    assert "this is not YAML" in refusal(tmp_path, f"? &k {{}}\n: 1\n{text}")
    lists = "[" + "&b0 [x]" + doubled(", &b{n} [*b{below}, *b{below}]") + "]"
    assert "this is not YAML" in refusal(tmp_path, f"? {lists}\n: 1\n")


@pytest.mark.parametrize("opened", ["a: " + "[" * 10_000, "a: " + "{" * 10_000, "- " * 10_000])
def test_ten_thousand_levels(tmp_path: Path, opened: str) -> None:
    assert "nested too deeply" in refusal(tmp_path, opened)


@pytest.mark.parametrize(
    "number",
    ["9" * 200_000, "0x" + "f" * 200_000, "1" + ":1" * 200_000, "1" * 200_000 + ".5"],
    ids=["decimal", "hexadecimal", "sexagesimal", "float"],
)
@pytest.mark.parametrize("place", ["timeout: {}", "parameters: {{n: {}}}", "{}: 1", "? {}\n: 1"])
def test_a_number_without_end(tmp_path: Path, number: str, place: str) -> None:
    message = refusal(tmp_path, f"pipeline: a.b\n{place.format(number)}\n")
    assert f"run.yaml:2: a number has more than {MAX_DIGITS} characters" in message or (
        # YAML takes no key of more than 1024 characters.
        "this is not YAML" in message
    )


def test_a_number_without_end_on_the_command_line() -> None:
    with pytest.raises(UsageError, match="--param n"):
        param_option("n=" + "1" + ":1" * 200_000)


@pytest.mark.parametrize("line", ["# comment", "a: " + "x" * 60])
def test_a_hundred_megabytes(tmp_path: Path, line: str) -> None:
    path = tmp_path / "run.yaml"
    with path.open("w") as file:
        file.write(f"{line}\n" * 1000)
        # The rest is a hole.
        file.truncate(100_000_000)
    with pytest.raises(UsageError, match=f"more than {MAX_LENGTH:,} characters"):
        load_spec(path)


def test_a_file_without_end(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no regular file"):
        load_spec(Path("/dev/zero"))
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match=f"more than {MAX_LENGTH:,} characters"):
        load_spec(tmp_path / "sparse")


@pytest.mark.parametrize(
    "value", ["!!int ''", "!!float ''", "!!bool x", "!!timestamp x", "!!binary 'é'", '"\\ud83d"']
)
def test_a_value_that_is_none(tmp_path: Path, value: str) -> None:
    for text in (f"parameters: {{a: {value}}}", f"{value}: 1", f"pipeline: {value}"):
        assert "run.yaml" in refusal(tmp_path, f"pipeline: a.b\n{text}\n")


@pytest.mark.parametrize("tag", ["!!set", "!!omap", "!!str", "!!python/object:os.system"])
def test_a_file_whose_mapping_has_another_tag(tmp_path: Path, tag: str) -> None:
    refusal(tmp_path, f"{tag}\npipeline: a.b\n")
