"""What a sandbox gets of the lines of Dockerfiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from modalrun.localmodal.sandbox import rootfs
from modalrun.localmodal.sandbox.recipe import File, Recipe, RecipeError, expand


def context(*paths: str) -> list[File]:
    return [File(f"/{path}", Path("stored", path), 0o600) for path in paths]


def read(*layers: Sequence[str], files: Sequence[File] = (), **arguments: str) -> Recipe:
    recipe = Recipe()
    for lines in layers:
        recipe.add(lines, files, arguments)
    return recipe


TREE = context("app.py", "lib/a.py", "lib/deep/b.py", "data.txt")


@pytest.mark.parametrize(
    ("line", "copied"),
    [
        ("COPY app.py /srv/run.py", ["/srv/run.py"]),
        ("COPY app.py /new/", ["/new/app.py"]),
        ("COPY app.py .", ["/work/app.py"]),
        ("COPY app.py sub/", ["/work/sub/app.py"]),
        ("COPY app.py /root", ["/root/app.py"]),
        ("COPY app.py /usr/local/bin", ["/usr/local/bin/app.py"]),
        ("COPY lib /new", ["/new/a.py", "/new/deep/b.py"]),
        ("COPY ./lib/. new", ["/work/new/a.py", "/work/new/deep/b.py"]),
        ("COPY . .", ["/work/app.py", "/work/lib/a.py", "/work/lib/deep/b.py", "/work/data.txt"]),
        ("COPY *.py data.txt /new", ["/new/app.py", "/new/data.txt"]),
        ("COPY li?/*.py /new/", ["/new/a.py"]),
        ('COPY ["app.py", "/two words"]', ["/two words"]),
        ("COPY 'app.py' \"/two words\"", ["/two words"]),
        ("COPY --chown=1:1 --chmod=755 --link app.py /x", ["/x"]),
        ("COPY ${NAME}.py $TARGET", ["/here/app.py"]),
        ("ADD app.py /x", ["/x"]),
        ("COPY --from=ghcr.io/astral-sh/uv:latest /uv /.uv/uv", []),
        ("COPY /python/. /usr/local", []),
    ],
)
def test_copies(line: str, copied: list[str]) -> None:
    lines = ["FROM base", "ARG NAME=app", "ENV TARGET=/here/", "WORKDIR /work", line]
    recipe = read(lines, files=TREE)
    assert [file.path for file in recipe.files] == copied
    assert recipe.notes == []
    if "chmod" in line:
        assert recipe.files[0].mode == 0o755


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("COPY --from=builder /a /b", "nothing is built"),
        ("COPY --exclude=x . /b", "--exclude is not known"),
        ("COPY <<EOF /etc/x\nwhat\nEOF", "only files are copied"),
        ("ADD https://example.com/x /x", "nothing is downloaded"),
        ("ADD tree.tar.gz /", "archives are not unpacked"),
        ("USER nobody", "sandboxes have one user, on Modal root"),
        ("HEALTHCHECK NONE", "use modal.Probe"),
        ("VOLUME /data", "use modal.Volume"),
        ("ONBUILD RUN x", "nothing is built"),
        ("STOPSIGNAL 9", "Modal kills sandboxes"),
        ("WORKDIRS /x", "no such instruction is known"),
    ],
)
def test_what_is_not_kept_is_named(line: str, reason: str) -> None:
    recipe = read(["FROM base", line, "ENV A=1"], files=context("tree.tar.gz"))
    assert recipe.notes == [f"{line.splitlines()[0]} ({reason})"]
    assert (recipe.files, recipe.env) == ([], [("A", "1")])
    recipe.add(["FROM base"])
    assert recipe.notes == []


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("COPY missing /x", "missing of COPY or ADD is not in the build context"),
        ("COPY app.py", "need a source and a target"),
        ("ENV A='x", "No closing quotation: A='x"),
    ],
)
def test_what_fails_the_build(line: str, text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(["FROM base", line], files=TREE)
    assert text in str(caught.value)


def test_stages() -> None:
    recipe = read(
        [
            "FROM golang:1.22 AS builder",
            "ENV A=1",
            "WORKDIR /src",
            "COPY app.py .",
            'CMD ["a"]',
            "FROM python:3.11-slim",
            "ENV B=2",
            "COPY --from=builder /src/x /x",
            "FROM builder",
            "ENV C=3",
        ],
        files=TREE,
    )
    assert recipe.env == [("A", "1"), ("C", "3")]
    assert (recipe.workdir, recipe.command, recipe.base) == ("/src", ["a"], "golang:1.22")
    assert [file.path for file in recipe.files] == ["/src/app.py"]
    assert len(recipe.notes) == 1


def test_layers_add_up() -> None:
    recipe = read(
        ["FROM python:3.11", "ENV A=1", 'CMD ["a"]'],
        ["FROM base", 'ENTRYPOINT ["wrap"]'],
        ["FROM base", 'SHELL ["/bin/bash", "-c"]'],
        ["FROM base", "CMD echo $A"],
    )
    assert (recipe.entrypoint, recipe.command) == (["wrap"], ["/bin/bash", "-c", "echo $A"])
    assert read(["FROM x", 'CMD ["a"]'], ["FROM base", 'ENTRYPOINT ["e"]']).command is None
    assert read(["FROM x", 'CMD ["a"]', 'ENTRYPOINT ["e"]']).command == ["a"]


def test_arguments_of_builds() -> None:
    lines = [
        "ARG TAG=3.11",
        "FROM python:$TAG",
        "ARG A=1 B",
        "ENV X=$A Y=${B:-none}",
        "ENV Z=$PATH",
    ]
    recipe = read(lines, A="two")
    assert recipe.base == "python:3.11"
    assert recipe.env == [("X", "two"), ("Y", "none"), ("Z", "$PATH")]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A/${A}", "1/1"),
        ("$B${B}", ""),
        ("${B:-x}${A:-x}", "x1"),
        ("/app${A:+:$A}${B:+:$B}", "/app:1"),
        ("${B:-${A}}", "1"),
        (r"\$A", "$A"),
        ("$1 $", "$1 $"),
    ],
)
def test_variables(text: str, value: str) -> None:
    known: Any = {"A": "1"}
    assert expand(text, known) == value


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("ENV X='a $A'", "a 1"),
        (r"ENV X=\$A", "$A"),
        (r'ENV X="\$A $A"', "$A 1"),
        ('ENV X="it\'s $A"', "it's 1"),
        (r"ENV X=a\ b\\c", r"a b\c"),
        ('ENV X "two  words"', "two  words"),
        ("ENV X\ttwo  $A", "two  1"),
        ("ENV X  'two $A'", "two 1"),
        ("ENV X=$B", "1/b"),
        ("ENV X=$P", "pa$A"),
        ("ENV X=$GIVEN", "gi$A"),
        ("ENV A=2 X=$A", "1"),
        ("ENV X=/x:$PATH", "/x:/opt:/usr/bin"),
    ],
)
def test_values(line: str, value: str) -> None:
    before = ["ARG GIVEN", "ENV A=1", "ENV B=$A/b", r"ENV P=pa\$A", "ENV PATH=/opt:$PATH"]
    recipe = read(["FROM base", *before, line], GIVEN="gi$A")
    env = rootfs.environment(Path("/root"), recipe, {}, {}, isolated=True)
    system = env["PATH"].rpartition("/opt:")[2]
    assert env["X"].replace(system, "/usr/bin") == value


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("WORKDIR '/data/my project'", "/data/my project"),
        ("WORKDIR /data/my project", "/data/my project"),
        ("WORKDIR $SRC", "/app/src"),
        ("WORKDIR $DIR", "/opt/1"),
        (r"WORKDIR /\$SRC", "/$SRC"),
        ("WORKDIR ../tests", "/tests"),
        ("WORKDIR /../up/./x/..", "/up"),
    ],
)
def test_working_folders(line: str, folder: str) -> None:
    before = ["ARG V=1", "ARG DIR=/opt/$V", "ENV APP=/app", "ENV SRC=$APP/src", "WORKDIR /work"]
    recipe = read(["FROM base", *before, line, "COPY app.py ."], files=TREE)
    assert recipe.workdir == folder
    assert recipe.files[0].path == f"{folder}/app.py"


@pytest.mark.parametrize(
    "line",
    [
        "RUN echo $((1<<3))",
        "RUN echo $(( x <<3 ))",
        'RUN python -c "print(1<<20)"',
        'RUN cat <<<"x"',
        "RUN cat <<EOF > /x && cat <<'END'\nENV B=2\nEOF\nENV B=3\nEND",
        "RUN cat<<EOF\nENV B=2\nEOF",
    ],
)
def test_only_here_documents_hide_lines(line: str) -> None:
    assert read(["FROM base", line, "ENV A=1"]).env == [("A", "1")]


def test_here_documents_are_no_instructions() -> None:
    recipe = read(["FROM base", "RUN <<EOF\nENV A=1\nCMD x\nEOF", "ENV B=2"])
    assert (recipe.env, recipe.command) == ([("B", "2")], None)
