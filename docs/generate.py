"""Generate the tables of the pages in this folder from the code: python docs/generate.py

A generated part stands between `<!-- generated: name -->` and `<!-- end -->`.
tests/unit/test_docs.py fails when a page is stale.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import typer
from pydantic import BaseModel

from modalrun import errors
from modalrun.cli import app, options
from modalrun.plan.deployment import CompiledStep, Deployment
from modalrun.plan.model import RUN_SANDBOX, Plan
from modalrun.plan.planner import app_name, make_plan
from modalrun.run.run_plan import PlannedStep, RunSettings
from modalrun.run.sandbox_spec import DEFAULT_CORES, DEFAULT_MEMORY_MIB
from modalrun.spec.fields import ImageSetting, ResourceFields, SettingFields
from modalrun.spec.places import SHORT_FORMS
from modalrun.spec.precedence import Origin
from modalrun.spec.schema import COMPILED_KEYS, REFUSED, RUN_KEYS, STEP_KEYS, OurKeys

FOLDER = Path(__file__).parent
_PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

_EXAMPLES = {
    Origin.COMMAND_LINE_STEP: "`--set steps.train.settings.orchestrator.gpu=H100`",
    Origin.COMMAND_LINE: "`--gpu H100`, `--set gpu=H100`, `--set settings.orchestrator.gpu=H100`",
    Origin.SPEC_STEP: "`steps: {train: {settings: {orchestrator: {gpu: H100}}}}`",
    Origin.SPEC_PIPELINE: "`gpu: H100`, `settings: {orchestrator: {gpu: H100}}`",
    Origin.CODE_STEP: '`@step(settings={"orchestrator": ModalOrchestratorSettings(gpu="H100")})`',
    Origin.CODE_PIPELINE: '`@pipeline(settings={"orchestrator": ModalOrchestratorSettings(...)})`',
    Origin.COMPONENT: "the stack's orchestrator: `zenml orchestrator register ... --gpu=H100`",
    Origin.DEFAULT: "the tables below; for the environment, Modal's own configuration",
}

_ON_BOTH = frozenset({"gpu"})
"""Settings of a step that also apply in `pipeline` mode, if the pipeline does not set them."""

_MODALS = "Modal's"
_ABSENT = {
    "gpu": "none",
    "gpu_wait": "see right",
    "wait_for_capacity": "none",
    "region": "any",
    "cloud": "any",
    "workspace": "any",
    "modal_environment": "see right",
    "secrets": "none",
    "volumes": "none",
    "image": "from `docker`",
    "source_include": "none",
    "max_parallelism": "see right",
    "cpu_limit": _MODALS,
    "memory_limit": _MODALS,
}
"""Shown instead of a default that is None."""


def pages() -> dict[Path, str]:
    """Return the text of each page with generated parts."""
    found = {}
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        made = _PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}{part[3]}", text)
        if _PART.search(text):
            found[path] = made
    return found


def precedence() -> str:
    """List the places where a value can be set, the strongest first."""
    rows = [(place + 1, place.label, _EXAMPLES[place]) for place in Origin]
    return _table(("", "place", "example"), rows)


def spec_keys() -> str:
    """List the run spec keys of modalrun."""
    rows = []
    meanings = _meanings(OurKeys)
    for name, field in OurKeys.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        rows.append((f"`{name}`", _type(field), default, meanings[name]))
    return _table(("key", "type", "default", "meaning"), rows)


def short_forms() -> str:
    """List the keys that stand for longer ones."""
    rows = []
    for short, place in SHORT_FORMS.items():
        model = ResourceFields if place[1] == "resources" else SettingFields
        rows.append(
            (f"`{'.'.join(short)}`", _type(model.model_fields[place[2]]), f"`{': '.join(place)}`")
        )
    return _table(("key", "type", "stands for"), rows)


def image() -> str:
    """List the keys of the setting `image`."""
    meanings = _meanings(ImageSetting)
    fields = ImageSetting.model_fields.items()
    return _table(
        ("key", "type", "meaning"),
        [(f"`image.{name}`", _type(field), meanings[name]) for name, field in fields],
    )


def zenml_keys() -> str:
    """List the run spec keys of ZenML."""
    rows = [
        (
            f"`{name}`",
            "yes" if name in RUN_KEYS else "",
            "yes" if name in STEP_KEYS else "",
            "yes" if name in COMPILED_KEYS else "",
            f"refused: {REFUSED[name]}" if name in REFUSED else "",
        )
        for name in sorted(RUN_KEYS | STEP_KEYS)
    ]
    return _table(("key", "on the run", "on a step", "with `deployment:`", ""), rows)


def settings() -> str:
    """List the settings of the orchestrator."""
    defaults, meanings = _defaults(), _meanings(SettingFields)
    of_run = {field.name for field in fields(RunSettings)}
    rows = []
    for name, field in SettingFields.model_fields.items():
        value = defaults.get(name)
        default = _ABSENT[name] if value in (None, ()) else f"`{_yaml(value)}`"
        where = "yes" if name in _ON_BOTH else "no" if name in of_run else "`per_step`"
        rows.append((f"`{name}`", _type(field), default, where, meanings[name]))
    return _table(("setting", "type", "default", "on a step", "meaning"), rows)


def resources() -> str:
    """List the resource settings of ZenML that a sandbox uses."""
    meanings = _meanings(ResourceFields)
    defaults = {
        "cpu_count": f"`{DEFAULT_CORES:g}`",
        "memory": f"`{DEFAULT_MEMORY_MIB}MiB`",
        "gpu_count": "1 with a type",
    }
    rows = [
        (f"`{name}`", _type(field), defaults[name], meanings[name])
        for name, field in ResourceFields.model_fields.items()
    ]
    driver = (
        "\nThe defaults are lower where `cpu_limit` or `memory_limit` is. The driver of a"
        " `per_step` run gets these two, and never a GPU.\n"
    )
    return _table(("setting", "type", "default", "meaning"), rows) + driver


def flags() -> str:
    """List the options that `submit`, `plan`, `compile` and `rerun` share, and the key of each."""
    rows = []
    command = typer.main.get_command(app).commands["plan"]  # type: ignore[attr-defined]
    shared = inspect.signature(options._given).parameters
    samples = {"sync": True, "param": ["NAME=VALUE"], "no_cache": True, "set_": ["KEY=0"]}
    for parameter in command.params:
        if parameter.name not in shared:
            continue
        names = ", ".join(f"`{n}`" for n in (*parameter.opts, *parameter.secondary_opts))
        if parameter.name == "target":
            key = "`target`"
        else:
            sample = samples.get(parameter.name, "1")
            (override,) = options._given(**{parameter.name: sample}).overrides
            key = f"`{'.'.join(map(str, override.path))}`"
        if parameter.name == "set_":
            key = "any"
        rows.append((names, key, parameter.help))
    return _table(("option", "key of the run spec", "meaning"), rows)


def exit_codes() -> str:
    """List the classes of errors.py with their exit codes."""
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type)
        and issubclass(value, errors.ModalrunError)
        and value is not errors.ModalrunError
    ]
    rows = [
        (
            f"[{one.exit_code}](#exit-code-{one.exit_code})",
            f"`{one.__name__}`",
            (inspect.getdoc(one) or "").splitlines()[0],
        )
        for one in sorted(classes, key=lambda one: one.exit_code)
    ]
    return _table(("code", "class in `modalrun.errors`", "meaning"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "precedence": precedence,
    "spec-keys": spec_keys,
    "short-forms": short_forms,
    "image": image,
    "zenml-keys": zenml_keys,
    "settings": settings,
    "resources": resources,
    "flags": flags,
    "exit-codes": exit_codes,
}


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    cells = [[str(cell).replace("|", r"\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Read the meaning of each attribute from a class's docstring."""
    _, _, section = (inspect.getdoc(model) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        begins = re.match(r"    (\w+): (.*)", line)
        if begins:
            name = begins[1]
            found[name] = begins[2]
        elif line.startswith("        ") and name:
            found[name] += f" {line.strip()}"
        elif line.strip():
            break
    return {name: re.sub(r'"([^" ]+)"', r"`\1`", text) for name, text in found.items()}


def _defaults() -> dict[str, Any]:
    """Return the value of each setting that no place sets."""
    plan: Plan = make_plan(
        Deployment("x", (CompiledStep(PlannedStep("train")),)),
        target="modal",
        source_root=FOLDER,
        python_version="3.11",
        engine_packages=(),
    )
    found = {**plan.sandbox_origins[RUN_SANDBOX], **plan.origins}
    values = {name: value.value for name, value in found.items()}
    return {**values, "app_name": app_name("x").replace("-x", "-<pipeline>")}


def _type(field: Any) -> str:
    """Describe the values that a field accepts."""
    return _words(field.annotation, tuple(field.metadata))


def _words(kind: Any, bounds: tuple[Any, ...] = ()) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        parts = [_words(part, bounds) for part in inner if part is not type(None)]
        if inner == (int, str):
            # A `spec.fields.Duration`.
            parts = [f"seconds{_bounds(bounds)}, or as `90s`, `1h30m`"]
        return " or ".join(parts)
    if hasattr(kind, "__metadata__"):
        return _words(inner[0], (*bounds, *kind.__metadata__))
    if origin is list:
        return "list of strings"
    if origin is dict or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return "mapping"
    return {str: "string", int: "whole number", float: "number", bool: "`true`, `false`"}[
        kind
    ] + _bounds(bounds)


def _bounds(found: tuple[Any, ...]) -> str:
    flat: list[Any] = []
    for one in found:
        flat += getattr(one, "metadata", None) or [one]
    least = next((one.ge for one in flat if isinstance(one, annotated_types.Ge)), None)
    most = next((one.le for one in flat if isinstance(one, annotated_types.Le)), None)
    if any(isinstance(one, annotated_types.Gt) for one in flat):
        return " above 0"
    if least is not None:
        return f", {least} to {most}" if most is not None else f", {least} or more"
    return ""


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Write the pages that are stale."""
    for path, text in pages().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"Wrote {path}")


if __name__ == "__main__":
    main()
