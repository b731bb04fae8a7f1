"""What a pipeline's source says of its parameters, read without importing anything.

For a spec that is wrong anyway: its parameters are then looked at in the same go, and what was
read may be less than what importing the pipeline tells. ZenML has the last word.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import create_model

from modalrun.errors import UsageError
from modalrun.flavor.pipeline_discovery import is_pipeline, parsed
from modalrun.spec.mistakes import Mistakes
from modalrun.spec.validation import check
from modalrun.spec.yaml_source import KeyPath, YamlSource, nearest

_TYPES = {"int": int, "float": float, "str": str, "bool": bool}


@dataclass(frozen=True)
class Declared:
    """A pipeline as its source declares it.

    Attributes:
        name: Its name.
        parameters: The types of its parameters; `Any` where the annotation isn't a plain one.
    """

    name: str
    parameters: Mapping[str, Any]


def declared(root: Path, source: str) -> Declared | None:
    """The pipeline of a source such as `module.function`; None where it can't be told for sure."""
    module, _, name = source.rpartition(".")
    tree = parsed(root.joinpath(*module.split(".")).with_suffix(".py"))
    named = [node for node in (tree.body if tree else []) if _binds(node, name)]
    function = named[0] if len(named) == 1 else None
    if not isinstance(function, ast.FunctionDef):
        return None
    arguments = function.args
    if len(function.decorator_list) != 1 or not is_pipeline(function.decorator_list[0]):
        return None
    if arguments.vararg or arguments.kwarg:
        return None
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    return Declared(
        _name(function.decorator_list[0]) or name,
        {one.arg: _type(one.annotation) for one in every},
    )


def check_parameters(
    source: YamlSource, given: Any, pipeline: Declared, mistakes: Mistakes
) -> None:
    """Compare the parameters of a run spec with those that its pipeline declares.

    Args:
        source: The run spec's file, or the command line.
        given: Its key `parameters`.
        pipeline: The pipeline.
        mistakes: Gets what is wrong.
    """
    if not isinstance(given, Mapping):
        # That was said already.
        return
    for name in given:
        if name not in pipeline.parameters:
            at, owner = ("parameters", str(name)), f"the pipeline '{pipeline.name}'"
            problem, hint = unknown_parameter(owner, str(name), pipeline.parameters)
            mistakes.found.append(UsageError(f"{source.where(at)}: {problem}", hint=hint))
    known = {name: value for name, value in given.items() if name in pipeline.parameters}
    types: dict[str, Any] = {name: (pipeline.parameters[name], ...) for name in known}
    at_parameters: KeyPath = ("parameters",)
    with mistakes.collecting():
        check(source, at_parameters, create_model("Parameters", **types), known)


def unknown_parameter(owner: str, name: str, known: Mapping[str, Any]) -> tuple[str, str]:
    """What to say of a parameter that a pipeline or step doesn't have: the problem, and a hint."""
    close = nearest(name, known)
    return (
        f"{owner} has no parameter '{name}'.",
        f"Did you mean '{close}'?" if close else f"It has: {', '.join(known) or 'none'}.",
    )


def _binds(node: ast.stmt, name: str) -> bool:
    """Whether a statement at the top of a module may give a name its meaning."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name == name
    return any(
        (isinstance(one, ast.Name) and one.id == name and isinstance(one.ctx, ast.Store))
        or (isinstance(one, ast.alias) and (one.asname or one.name) in {name, "*"})
        or (isinstance(one, ast.FunctionDef) and one.name == name)
        for one in ast.walk(node)
    )


def _name(decorator: ast.expr) -> str | None:
    given = decorator.keywords if isinstance(decorator, ast.Call) else []
    for keyword in given:
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value)
    return None


def _type(annotation: ast.expr | None) -> Any:
    """The type of `int`, `int | None` and the like, as pydantic takes it."""
    if isinstance(annotation, ast.Name):
        return _TYPES.get(annotation.id, Any)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        sides = (annotation.left, annotation.right)
        plain = [_type(one) for one in sides if not _is_none(one)]
        if len(plain) == 1 and plain[0] is not Any:
            return plain[0] | None
    return Any


def _is_none(annotation: ast.expr) -> bool:
    return isinstance(annotation, ast.Constant) and annotation.value is None
