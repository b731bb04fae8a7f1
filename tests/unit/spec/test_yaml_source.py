"""Reading YAML with positions."""

import subprocess
import sys
from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.spec.yaml_source import read_yaml


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problem(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_yaml(path)
    assert "Traceback" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("# a comment\n", "has no keys"),
        ("~", "has no keys"),
    ],
)
def test_no_keys(tmp_path: Path, text: str, what: str) -> None:
    path = write(tmp_path, text)
    error = problem(path)
    assert error.message == f"{path} {what}."
    assert "'pipeline'" in str(error.hint)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("- a\n- b\n", "a list"), ("\n\nhello\n", "a single value"), ("5\n", "a single value")],
)
def test_not_a_mapping(tmp_path: Path, text: str, kind: str) -> None:
    path = write(tmp_path, text)
    line = 3 if text.startswith("\n") else 1
    message = problem(path).message
    assert message.startswith(f"{path}:{line}: ")
    assert f"holds {kind}" in message


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("a: [1\n", "1:4", "the [ that begins here is not closed."),
        ("a: 'open\nb: 1\n", "1:4", "the ' that begins here is not closed."),
        ('a: {b: "open\n', "1:8", 'the " that begins here is not closed.'),
        ("a: {b: [\n", "1:8", "the [ that begins here is not closed."),
        ("a: {b: 1,\n  c: 2\nd: 5\n", "1:4", "not closed, or a comma is missing before line 3."),
        ("a: {b: 'it's', c: 2}\nd: 5\n", "1:12", "expected ',' or '}'"),
        ("a: 1\n---\nb: 2\n", "2:1", "a second document begins here"),
        ("a:\n\tb: 1\n", "2:1", "put spaces in its place"),
        ("a: @b\n", "1:4", "Put quotes around a text that begins with @."),
        ("a: b: c\n", "1:5", "Put quotes around a value that holds ': '."),
        ("a:\n  - 1\n - 2\n", "3:2", "indented alike"),
        ('a: "x" y\n', "1:8", "nothing follows a text in quotes"),
        ("a: *nowhere\n", "1:4", "undefined alias"),
        ("? [a, b]\n: 1\n", "1:3", "unhashable key"),
        ("a: {<<: 1}\n", "1:9", "only mappings can be merged"),
        ("a: !!python/object/apply:os.system [id]\n", "1:4", "could not determine a constructor"),
    ],
)
def test_not_yaml(tmp_path: Path, text: str, place: str, reason: str) -> None:
    path = write(tmp_path, text)
    error = problem(path)
    assert error.message.startswith(f"{path}:{place}: this is not YAML: ")
    assert reason in f"{error.message}\n{error.hint}"


@pytest.mark.parametrize("below", ["", "b: 2\n"])
def test_a_comment_that_hides_the_end(tmp_path: Path, below: str) -> None:
    path = write(tmp_path, f"a: 1\nparameters: {{x: 'a #1',\n rate: 1:30, a: v1 #2}}\n{below}")
    error = problem(path)
    assert error.message.startswith(f"{path}:2:13: this is not YAML: the {{ that begins here")
    assert (error.hint or "").startswith("In line 3 a '#' after a blank begins a comment")


@pytest.mark.parametrize("text", ["2024-13-45", "0000-00-00", "0b_", "=", "<<"])
def test_a_plain_word_that_is_no_number_and_no_date_is_text(tmp_path: Path, text: str) -> None:
    assert read_yaml(write(tmp_path, f"a: {text}\n")).data == {"a": text}


def test_value_that_its_tag_does_not_allow(tmp_path: Path) -> None:
    path = write(tmp_path, "a: !!int x\n")
    assert problem(path).message.startswith(f"{path} is not YAML: ")


def test_binary_file(tmp_path: Path) -> None:
    path = write(tmp_path, b"\x89PNG\r\n\x1a\n\xff\xfe\x00")
    assert problem(path).message == f"{path} is not UTF-8 text."


@pytest.mark.parametrize("data", [b"\x00\x01\x02", b"pipeline: a.b\x07\n", b"a: \x1b[2J\n"])
def test_control_characters(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path, data)
    message = problem(path).message
    assert str(path) in message
    assert not any(ord(c) < 32 and c != "\n" for c in message)


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    source = read_yaml(write(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n"))
    assert source.data == {"a": 1, "b": 2}
    assert source.where(("b",)).endswith(":2")


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    assert problem(path).message == f"There is no file {path}."


def test_folder(tmp_path: Path) -> None:
    assert "is a folder" in problem(tmp_path).message


def test_file_below_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, "a: 1\n") / "more.yaml"
    assert problem(path).message == f"{path} can't be read: Not a directory."


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a"),
        ("steps:\n  train:\n    x: 1\n    x: 2\n", 4, "x"),
        ("list:\n  - {y: 1, y: 2}\n", 2, "y"),
        ("base: &base {z: 1,\n  z: 2}\n", 2, "z"),
    ],
)
def test_duplicate_key(tmp_path: Path, text: str, line: int, key: str) -> None:
    path = write(tmp_path, text)
    error = problem(path)
    assert error.message == f"{path}:{line}: the key '{key}' is given a second time."
    assert error.hint


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    text = """\
base: &base
  cpu: 1
  gpu: T4
more: &more {memory: 1GB}
steps:
  a: *base
  b:
    <<: *base
    gpu: A100
  c:
    <<: [*base, *more]
"""
    source = read_yaml(write(tmp_path, text))
    assert source.data["steps"] == {
        "a": {"cpu": 1, "gpu": "T4"},
        "b": {"cpu": 1, "gpu": "A100"},
        "c": {"cpu": 1, "gpu": "T4", "memory": "1GB"},
    }
    # A merged key stands where its anchor has it.
    assert source.where(("steps", "b", "cpu")).endswith(":2")


@pytest.mark.parametrize(
    ("step", "line"), [("<<: *base\n  gpu: A100", 4), ("gpu: A100\n  <<: *base", 3)]
)
def test_where_of_a_key_that_overrides_a_merged_one(tmp_path: Path, step: str, line: int) -> None:
    source = read_yaml(write(tmp_path, f"base: &base {{gpu: T4}}\nstep:\n  {step}\n"))
    assert source.data["step"] == {"gpu": "A100"}
    assert source.where(("step", "gpu")).endswith(f":{line}")


def test_where_points_at_keys_items_and_the_nearest_parent(tmp_path: Path) -> None:
    path = write(tmp_path, "a:\n  b:\n    - 1\n    - 2\n")
    source = read_yaml(path)
    assert source.where(("a", "b")) == f"{path}:2"
    assert source.where(("a", "b", 1)) == f"{path}:4"
    assert source.where(("a", "absent", "deeper")) == f"{path}:1"
    assert source.where(("absent",)) == str(path)
    assert source.where(()) == str(path)


@pytest.mark.parametrize(
    "text", ["a: &a\n  b: *a\n", "a: &a\n  - *a\n", "a: &a\n  b:\n    <<: *a\n", "a: &a {<<: *a}"]
)
def test_alias_that_contains_itself(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    assert "contains itself" in problem(path).message


def read_in_a_process(path: Path, seconds: int) -> str:
    """Read the file where a hang can be ended; returns the class of what came of it.

    The time is that of the CPU: the machine may be busy.
    """
    code = (
        "import resource, sys, pathlib\n"
        f"resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))\n"
        "from modalrun.spec.yaml_source import read_yaml\n"
        "try:\n"
        "    read_yaml(pathlib.Path(sys.argv[1]))\n"
        "except BaseException as error:\n"
        "    print(type(error).__name__)\n"
        "else:\n"
        "    print('read')\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "hangs"


def laughs(levels: int, width: int, *, merge: bool = False) -> str:
    lines = ["a0: &a0 {x: 1}" if merge else "a0: &a0 [x]"]
    for i in range(1, levels):
        aliases = ", ".join([f"*a{i - 1}"] * width)
        lines.append(f"a{i}: &a{i} {{<<: [{aliases}]}}" if merge else f"a{i}: &a{i} [{aliases}]")
    return "\n".join(lines) + "\n"


def test_billion_laughs(tmp_path: Path) -> None:
    path = write(tmp_path, laughs(12, 9))
    assert read_in_a_process(path, 3) in {"UsageError", "read"}


def test_deep_nesting(tmp_path: Path) -> None:
    path = write(tmp_path, "a: " + "[" * 1000 + "]" * 1000)
    assert read_in_a_process(path, 20) in {"UsageError", "read"}
