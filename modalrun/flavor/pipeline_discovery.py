"""Pipelines in a folder of Python files, found without importing anything."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from modalrun.submit.source_tree import source_files

_LARGEST = 1_000_000
"""Bytes; a larger file is no module that somebody wrote."""


@dataclass(frozen=True)
class FoundPipeline:
    """A function decorated with `@pipeline`.

    Attributes:
        source: As a run spec names it: `module.function`.
        parameters: Its arguments, and the text of their defaults; "..." where there is none.
        script: The file, where it runs something when it is executed; else None.
        required: The arguments that have no default.
    """

    source: str
    parameters: tuple[tuple[str, str], ...] = ()
    script: str | None = None
    required: tuple[str, ...] = ()


def source_root(folder: Path) -> Path:
    """The folder that sources are relative to: the nearest with `.zen`, else `folder` itself."""
    return next((one for one in (folder, *folder.parents) if (one / ".zen").is_dir()), folder)


def pipelines(root: Path) -> list[FoundPipeline]:
    """The pipelines of all modules below a folder, in the order of their sources.

    Files that Git or `.dockerignore` leave out are left out here too; so are tests.
    """
    found = []
    for file in source_files(root):
        path = file if file.is_absolute() else root / file
        if "tests" not in path.relative_to(root).parts:
            found += in_file(path, root)
    return sorted(found, key=lambda one: one.source)


def in_file(path: Path, root: Path) -> list[FoundPipeline]:
    """The pipelines of one module below a folder; none where it is no module."""
    parts = path.relative_to(root).with_suffix("").parts
    named = [part for part in parts if part != "__init__"]
    if path.suffix != ".py" or not all(part.isidentifier() for part in named):
        return []
    return _in_module(path, ".".join(named), str(path.relative_to(root)))


def parsed(path: Path) -> ast.Module | None:
    """The syntax tree of a module; None where there is no such file, or nobody has written it."""
    try:
        return ast.parse(path.read_bytes()) if path.stat().st_size <= _LARGEST else None
    except (OSError, SyntaxError, ValueError):
        return None


def _in_module(path: Path, module: str, script: str) -> list[FoundPipeline]:
    tree = parsed(path)
    if tree is None:
        return []
    runs = any(
        isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body
    )
    return [
        FoundPipeline(
            f"{module}.{node.name}",
            _parameters(node.args),
            script if runs else None,
            _required(node.args),
        )
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(map(is_pipeline, node.decorator_list))
    ]


def is_pipeline(decorator: ast.expr) -> bool:
    """`@pipeline`, `@pipeline(...)`, `@zenml.pipeline(...)`."""
    named = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(named, ast.Attribute):
        return named.attr == "pipeline"
    return isinstance(named, ast.Name) and named.id == "pipeline"


def _required(arguments: ast.arguments) -> tuple[str, ...]:
    positional = [*arguments.posonlyargs, *arguments.args]
    bare = positional[: len(positional) - len(arguments.defaults)]
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return tuple(one.arg for one in (*bare, *(one for one, default in pairs if default is None)))


def _parameters(arguments: ast.arguments) -> tuple[tuple[str, str], ...]:
    positional = [*arguments.posonlyargs, *arguments.args]
    bare = len(positional) - len(arguments.defaults)
    defaults = [*[None] * bare, *arguments.defaults, *arguments.kw_defaults]
    names = [one.arg for one in (*positional, *arguments.kwonlyargs)]
    return tuple((name, _yaml(default)) for name, default in zip(names, defaults, strict=True))


def _yaml(default: ast.expr | None) -> str:
    """A default as YAML reads it, where it is a plain value."""
    if isinstance(default, ast.Constant):
        value = default.value
        if value is None or isinstance(value, bool):
            return {None: "null", True: "true", False: "false"}[value]
        if isinstance(value, int | float | str):
            return ast.unparse(default)
    return "..."
