"""Move short forms to the settings that they stand for: `gpu: T4` at the top level. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modalrun.spec.messages import as_written, format_value, path_name
from modalrun.spec.places import MODAL_KEYS, SHORT_FORMS, same_value
from modalrun.spec.validation import Checker
from modalrun.spec.yaml_nodes import KeyPath


def expanded(checker: Checker) -> Checker:
    """Return a checker of the same source, with short forms moved and `x-` keys left out.

    Its source knows the line and the name under which each moved key is written.
    """
    source = checker.source
    data = {key: v for key, v in source.data.items() if not str(key).startswith("x-")}
    modal = checker.mapping(("modal",), data.pop("modal", None))
    checker.names(("modal",), modal, MODAL_KEYS)
    settings = data.get("settings")
    # The section may have its other name.
    renamed = isinstance(settings, dict) and "orchestrator.modalrun" in settings
    names: dict[KeyPath, tuple[KeyPath, ...]] = {}
    for short, (_, section, name) in SHORT_FORMS.items():
        value = data.pop(short[0], None) if len(short) == 1 else modal.get(short[1])
        if value is None:
            continue
        renames = renamed and section == "orchestrator"
        place = ("settings", "orchestrator.modalrun" if renames else section, name)
        there = _put(data, place, value)
        if there is value:
            names[place] = (short,)
        elif not same_value(place, value, there):
            here = as_written(source.scalar(short)) or format_value(value)
            values = f"{here} here and {as_written(source.scalar(place)) or format_value(there)}"
            problem = f"is given twice: {values} under '{path_name(place)}'."
            checker.error(short, f"'{path_name(short)}' {problem}", "Keep one of them.")
    return replace(checker, source=replace(source, data=data, names=names))


def _put(data: dict[str, Any], place: tuple[str, ...], value: Any) -> Any:
    """Set a value unless there is one; return the one that there is."""
    here = data
    for part in place[:-1]:
        inner = here.get(part)
        if inner is not None and not isinstance(inner, dict):
            # Reported where it is read.
            return value
        # An alias may have it in several places.
        here[part] = dict(inner or {})
        here = here[part]
    if here.get(place[-1]) is None:
        here[place[-1]] = value
    return here[place[-1]]
