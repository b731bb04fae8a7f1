"""Find the pipelines of a Python file without importing it."""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

_LARGEST = 1_000_000
"""Bytes; a larger module is generated."""


@dataclass(frozen=True)
class FoundPipeline:
    """A function decorated with `@pipeline`.

    Attributes:
        source: Its name in a run spec: `module.function`.
        parameters: Its arguments, and their defaults as YAML; "..." if there is none.
        script: The file if it can be executed as a script; else None.
        required: The arguments without a default.
        src: The folder that its modules are imported from, if that is not the source root: `src` of
            a `src` layout, or the folder above a package that is the source root.
        step: The name of a step of the same module that it calls.
    """

    source: str
    parameters: tuple[tuple[str, str], ...] = ()
    script: str | None = None
    required: tuple[str, ...] = ()
    src: Path | None = None
    step: str | None = None


def in_file(path: Path, root: Path) -> list[FoundPipeline]:
    """Return the pipelines of one module below a folder; [] if it is no module."""
    if (tree := _parsed(path)) is None:
        return []
    src = _import_root(path, tree) or _src(path, root)
    src = None if src == root else src
    parts = path.relative_to(src or root).with_suffix("").parts
    named = [part for part in parts if part != "__init__"]
    if not all(part.isidentifier() for part in named):
        return []
    runs = any(
        isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body
    )
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    steps = {one.name for one in functions if any(map(_is_step, one.decorator_list))}
    return [
        FoundPipeline(
            ".".join([*named, node.name]),
            tuple((name, _yaml(default)) for name, default in _arguments(node.args)),
            str(path.relative_to(src or root)) if runs else None,
            tuple(name for name, default in _arguments(node.args) if default is None),
            src,
            _called(node, steps),
        )
        for node in functions
        if any(_decorates("pipeline", one) for one in node.decorator_list)
    ]


def may_have(path: Path, name: str) -> bool:
    """Return whether a module may have a pipeline that `in_file` does not know as one.

    It imports it, assigns it, or makes it of a function with a decorator that is not ZenML's.
    """
    tree = _parsed(path)
    return any(
        (isinstance(one, ast.alias) and (one.asname or one.name) in {name, "*"})
        or (isinstance(one, ast.Name) and one.id == name and isinstance(one.ctx, ast.Store))
        or (
            isinstance(one, ast.FunctionDef)
            and one.name == name
            and any(not _decorates("step", decorator) for decorator in one.decorator_list)
        )
        for one in (ast.walk(tree) if tree else ())
    )


def import_folder(path: Path) -> Path:
    """Return the folder that Python imports a file from.

    That is the one that its own imports need, else the first above it that is no package.
    """
    tree = _parsed(path)
    needed = _import_root(path, tree) if tree else None
    return needed or next(
        one
        for one in path.parents
        if not (one.name.isidentifier() and (one / "__init__.py").exists())
    )


def _parsed(path: Path) -> ast.Module | None:
    """Return the code of a module; None if it is no module, or generated."""
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        if path.suffix == ".py" and path.stat().st_size <= _LARGEST:
            return ast.parse(path.read_bytes())
    return None


def _import_root(path: Path, tree: ast.Module) -> Path | None:
    """Return the folder that the imports of a file need: `shop`, if `shop/churn` imports `churn.x`.

    Returns:
        None if it imports nothing of a folder that it is in.
    """
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names += [f"{node.module}.{one.name}" for one in node.names]
    for folder in path.parents:
        for first, second in (name.split(".")[:2] for name in names if "." in name):
            # A folder may be called as a package that is installed: `zenml/training.py`.
            known = (folder / "__init__.py", folder / f"{second}.py", folder / second)
            if first == folder.name and any(one.exists() for one in known):
                return folder.parent
    return None


def _src(path: Path, root: Path) -> Path | None:
    """Return `src` of a `src` layout: a folder, and no package."""
    src = root / "src"
    return src if path.is_relative_to(src) and not (src / "__init__.py").exists() else None


def _decorates(kind: str, decorator: ast.expr) -> bool:
    """Return whether it is `@pipeline`, `@pipeline(...)` or `@zenml.pipeline(...)`."""
    named = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(named, ast.Attribute):
        return named.attr == kind
    return isinstance(named, ast.Name) and named.id == kind


def _is_step(decorator: ast.expr) -> bool:
    """Return whether it makes a step that has the name of its function."""
    return _decorates("step", decorator) and not _gives("name", decorator)


def _gives(name: str, call: ast.expr) -> bool:
    return isinstance(call, ast.Call) and any(one.arg == name for one in call.keywords)


def _called(pipeline: ast.FunctionDef, steps: Set[str]) -> str | None:
    """Return one of some steps that a pipeline calls, and gives no other name."""
    calls = (node for node in ast.walk(pipeline) if isinstance(node, ast.Call))
    names = (
        one.func.id for one in calls if isinstance(one.func, ast.Name) and not _gives("id", one)
    )
    return next((name for name in names if name in steps), None)


def _arguments(arguments: ast.arguments) -> list[tuple[str, ast.expr | None]]:
    """Return the name and the default of each argument."""
    positional = [*arguments.posonlyargs, *arguments.args]
    bare = len(positional) - len(arguments.defaults)
    defaults = [*[None] * bare, *arguments.defaults, *arguments.kw_defaults]
    names = [one.arg for one in (*positional, *arguments.kwonlyargs)]
    return list(zip(names, defaults, strict=True))


def _yaml(default: ast.expr | None) -> str:
    """Return a default as YAML, which JSON is; "..." if it is no plain value."""
    with contextlib.suppress(ValueError, TypeError):
        value = ast.literal_eval(default) if default is not None else ...
        if value is None or isinstance(value, bool | int | float | str):
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
    return "..."
