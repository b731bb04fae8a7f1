"""Requirements files: how they are read, and which lines an image can install."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.errors import UsageError
from modalrun.plan.requirements import (
    contradictions,
    has_hashes,
    is_plain,
    local_path,
    logical_lines,
    project,
    read_requirements,
    resolve_path,
)


def test_logical_lines() -> None:
    text = (
        "# all\n\n  numpy>=1  # arrays\nx @ https://h/x.whl#egg=x\r\n"
        "y==1 \\\n    --hash=sha256:a \\\n    --hash=sha256:b\n--index-url https://h\n"
    )
    assert logical_lines(text) == (
        "numpy>=1",
        "x @ https://h/x.whl#egg=x",
        "y==1     --hash=sha256:a     --hash=sha256:b",
        "--index-url https://h",
    )


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("# pins \\\nnumpy\n", ("numpy",)),
        ("  # pins \\\r\nnumpy\n", ("numpy",)),
        ("numpy \\\n# pins \\\npolars", ("numpy", "polars")),
        ("numpy\\\n==1\\\n", ("numpy==1",)),
    ],
)
def test_comments_are_never_continued(text: str, lines: tuple[str, ...]) -> None:
    assert logical_lines(text) == lines


@given(st.text())
def test_logical_lines_are_lines(text: str) -> None:
    for line in logical_lines(text):
        assert line == line.strip()
        assert line
        assert not line.startswith("#")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Scikit_Learn[a,b]>=1", "scikit-learn"),
        ("zenml", "zenml"),
        ("zenml @ https://h", "zenml"),
        ("a.b ; python_version>'3'", "a-b"),
        ("-e .", None),
        ("./x", None),
        ("git+https://h/x", "git"),
        ("https://h/x.whl", None),
        ("folder/x", None),
    ],
)
def test_project(line: str, name: str | None) -> None:
    assert project(line) == name


@pytest.mark.parametrize("line", ["-e .", "-e ./x", "--editable=lib", "./x.whl", "/x", "~/x"])
def test_local_path(line: str) -> None:
    assert local_path(line) is not None


@pytest.mark.parametrize(
    "line", ["numpy", "-e git+https://h/x#egg=x", "x @ https://h/x", "git+ssh://git@h/x", "-i x"]
)
def test_no_local_path(line: str) -> None:
    assert local_path(line) is None


def test_lines_for_a_command_line() -> None:
    assert is_plain(["numpy>=1", "x @ https://h/x"])
    assert not is_plain(["--pre"])
    assert not is_plain(["x==1 --hash=sha256:a"])
    assert has_hashes(["x==1 --hash=sha256:a"])
    assert not has_hashes(["x==1"])


def test_contradictions() -> None:
    lines = [
        "zenml[server]<1",
        "modal>=2",
        "Modal~=1.6",
        "other==1",
        "modal===1 ; sys_platform=='x'",
    ]
    found = contradictions(lines, ["zenml==0.98.0", "modal==1.6.4"])
    assert found == {"modal>=2": "modal==1.6.4"}


def test_a_byte_order_mark_is_no_part_of_the_first_requirement(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfnumpy==1.26\npandas\n")
    assert read_requirements(tmp_path / "a.txt") == ("numpy==1.26", "pandas")


def test_requirements_files_include_others(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("one\n-r sub/b.txt\ntwo\n")
    (tmp_path / "sub" / "b.txt").write_text("--requirement=c.txt\n")
    (tmp_path / "sub" / "c.txt").write_text("three\n")
    assert read_requirements(tmp_path / "a.txt") == ("one", "three", "two")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"-r a.txt\n", "includes itself"),
        (b"-c constraints.txt\n", "constraints"),
        (b"-r absent.txt\n", "No such file"),
        (b"numpy\xff\n", "not UTF-8"),
    ],
)
def test_requirements_file_that_is_wrong(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_requirements(tmp_path / "a.txt")


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert resolve_path("a.txt", root) == root / "a.txt"
    (elsewhere / "a.txt").touch()
    assert resolve_path("a.txt", root) == elsewhere / "a.txt"
    (root / "a.txt").touch()
    assert resolve_path("a.txt", root) == root / "a.txt"
