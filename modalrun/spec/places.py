"""Know where keys of a run spec belong: those that stand for others, and those in a wrong place.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from pydantic import ValidationError

from modalrun import DOCS
from modalrun.run.run_plan import RunSettings
from modalrun.spec.fields import REPLACED, RESOURCE_KEYS, ResourceFields, SettingFields
from modalrun.spec.schema import RUN_KEYS, STEP_KEYS, DockerKeys, OurKeys, RetryKeys
from modalrun.spec.yaml_nodes import KeyPath
from modalrun.util.nearest import misspelling_of

ORCHESTRATOR = ("settings", "orchestrator")
RESOURCES = ("settings", "resources")

SHORT_FORMS: dict[tuple[str, ...], tuple[str, ...]] = {
    **{
        (name,): (*ORCHESTRATOR, name)
        for name in ("gpu", "timeout", "mode", "region", "max_parallelism")
    },
    ("cpu",): (*RESOURCES, "cpu_count"),
    ("memory",): (*RESOURCES, "memory"),
    ("image",): (*ORCHESTRATOR, "image"),
    ("source_include",): (*ORCHESTRATOR, "source_include"),
    ("modal", "environment"): (*ORCHESTRATOR, "modal_environment"),
    **{("modal", name): (*ORCHESTRATOR, name) for name in ("workspace", "secrets", "volumes")},
}
"""Keys of a run spec -> the longer ones that they stand for."""

TOP_KEYS = frozenset({*OurKeys.model_fields, *RUN_KEYS, *(path[0] for path in SHORT_FORMS)})
MODAL_KEYS = frozenset(path[1] for path in SHORT_FORMS if path[0] == "modal")

_OTHER_NAMES = {
    "cpu_count": "cpu cpus cores cpu_cores num_cpus vcpu vcpus",
    "memory": "mem ram",
    "gpu": "gpus gpu_type accelerator accelerators",
    "gpu_count": "num_gpus gpu_num n_gpus",
    "max_parallelism": "parallelism max_parallel concurrency max_concurrency",
    "region": "regions",
    "synchronous": "sync wait",
    "parameters": "params param args arguments",
    "environment": "env envs env_vars environment_variables variables",
    "enable_cache": "cache caching enable_caching",
    "run_name": "name",
    "max_retries": "retries",
    "requirements": "packages pip pip_packages pip_install python_packages dependencies",
    "apt_packages": "apt apt_install system_packages",
    "parent_image": "base_image docker_image",
    "volumes": "volume mounts",
}


_NAMES = {other: name for name, others in _OTHER_NAMES.items() for other in others.split()}
_OF_RUN = frozenset(field.name for field in fields(RunSettings))
_STEP_ONLY = STEP_KEYS - RUN_KEYS


def _places() -> dict[str, list[KeyPath]]:
    """List the places of each key by its name."""
    found: dict[str, list[KeyPath]] = {}
    for above, names in (
        ((), sorted(RUN_KEYS | STEP_KEYS | OurKeys.model_fields.keys() | {"modal"})),
        (ORCHESTRATOR, SettingFields.model_fields),
        # ZenML's "resources: resources" is for pools, and is what nobody means.
        (RESOURCES, sorted(RESOURCE_KEYS - {"resources"})),
        (("retry",), RetryKeys.model_fields),
        (("settings",), ("orchestrator", "resources", "docker")),
        (("modal",), ("environment",)),
    ):
        for name in names:
            found.setdefault(name, []).append((*above, name))
    for name in DockerKeys.model_fields:
        found.setdefault(name, [("settings", "docker", name)])
    return found


_PLACES = _places()

_MOST_LISTED = 16
"""Of more valid keys nobody reads a list: the docs have them with their meaning."""


def canonical(path: KeyPath) -> KeyPath:
    """Return the path that a path stands for: `gpu` -> `settings.orchestrator.gpu`."""
    short = next((one for one in SHORT_FORMS if path[: len(one)] == one), ())
    return (*SHORT_FORMS[short], *path[len(short) :]) if short else path


def same_value(place: KeyPath, one: Any, other: Any) -> bool:
    """Return whether two values of a setting mean the same: `2h` and `7200`."""
    model = ResourceFields if place[1] == "resources" else SettingFields
    try:
        return model.model_validate({place[2]: one}) == model.model_validate({place[2]: other})
    except ValidationError:
        return bool(one == other)


def hint(at: KeyPath, known: Iterable[str], listed: set[str], *, flag: bool = False) -> str | None:
    """Return what to write instead of an unknown key: the right place, or the nearest valid key.

    Args:
        known: The valid keys beside it.
        listed: What the user reads already of the valid keys; each sentence is shown once.
        flag: Whether `--set` has set the key: then the hint is another `--set`.
    """
    key, keys = str(at[-1]), frozenset(known)
    if key in REPLACED:
        return f"Use '{REPLACED[key]}' instead ({DOCS}/modes.md)."
    if key.startswith("x-"):
        return "Keys that begin with 'x-' stand at the top level."
    # A key of settings may name a flavor: "orchestrator.modal".
    word = re.split("[.:]", key.lower())[0].replace("-", "_")
    owner = at[:2] if at[0] == "steps" and len(at) > 2 else ()
    for name in (_NAMES.get(word, word), misspelling_of(word, keys), misspelling_of(word, _PLACES)):
        if name in keys:
            return f"Did you mean '{name}'?"
        if name in _PLACES:
            written = _as_flag if flag else _written
            places = dict.fromkeys(written(owner, place) for place in _PLACES[name])
            answer = "Use" if flag else f"'{key}' is"
            return f"{answer} {' or '.join(places)}."
    page = "images" if at[-2:-1] == ("docker",) else "configuration"
    answer = f"{DOCS}/{page}.md lists the valid keys."
    if len(keys) <= _MOST_LISTED:
        answer = f"Valid keys: {', '.join(sorted(keys))}."
    if answer in listed:
        return None
    listed.add(answer)
    return answer


def _of_step(place: KeyPath) -> bool:
    return place[0] in STEP_KEYS and (place[:2] != ORCHESTRATOR or place[-1] not in _OF_RUN)


def _whole(owner: KeyPath, place: KeyPath) -> KeyPath:
    """Return the path of a place, for the step that the key was written for if that may have it."""
    if place[0] in _STEP_ONLY:
        return (*(owner or ("steps", "STEP")), *place)
    return (*owner, *place) if owner and _of_step(place) else place


def _as_flag(owner: KeyPath, place: KeyPath) -> str:
    """Write the flag that sets a key in its place."""
    parts = map(str, _whole(owner, place))
    path = ".".join(f'"{part}"' if "." in part else part for part in parts)
    return f"'--set {path}=...'"


def _written(owner: KeyPath, place: KeyPath) -> str:
    """Write the place of a key as it stands in a run spec."""
    whole = _whole(owner, place)
    if whole == place and (owner or len(place) == 1):
        place = next((short for short, long in SHORT_FORMS.items() if long == place), place)
        return f"'{': '.join(map(str, place))}' at the top level"
    return f"'{': '.join(map(str, whole))}'"
