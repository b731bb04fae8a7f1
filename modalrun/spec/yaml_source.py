"""Read YAML with the line of each key, and replace variables in its values.

Pure but for reading the file and the environment.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from modalrun.errors import UsageError, show_as
from modalrun.spec.yaml_mistakes import explained
from modalrun.util.regular_files import open_regular

MAX_NODES = 100_000
"""More keys and values, once aliases are followed, are taken for an attack ("billion laughs")."""

MAX_LENGTH = 1_000_000
"""Characters. A longer file is data, or has no end."""

MAX_DIGITS = 100
"""Characters of a number. To read one, and to show it, costs the square of its length."""

_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
_STRING = "tag:yaml.org,2002:str"
_WORDS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "null", "timestamp"))

_HALF_A_PAIR = re.compile("[\ud800-\udfff]")

_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\})?")
"""`$${`, `${NAME}`, `${NAME:-default}`, or the begin of what is neither."""

_LEFT_FOR_ZENML = re.compile(r"\$\{[a-zA-Z0-9_]+\}")
"""What ZenML would replace (`zenml/utils/env_utils.py`, 0.98.0)."""

KeyPath = tuple[str | int, ...]

_NULL = "tag:yaml.org,2002:null"
_VARIABLES_OF: frozenset[KeyPath] = frozenset(
    {
        ("environment",),
        ("settings", "docker", "environment"),
        ("settings", "docker", "runtime_environment"),
    }
)
"""Mappings of environment variables, of the pipeline or a step: their values are text."""


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.1, and `1e-3` as the number that it is in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class Scalar:
    """Hold what is written for a value that is not simply that text.

    Attributes:
        text: Its text, with variables replaced.
        value: What YAML reads it as.
        written: The text with its variables as they are written; None without any.
    """

    text: str
    value: Any = field(repr=False)
    written: str | None = None

    @property
    def is_surprising(self) -> bool:
        """Whether people read something else: `NO` is false in YAML 1.1, 010 is 8, 1:30 is 90."""
        text = self.text.lower()
        if isinstance(self.value, bool):
            return text not in {"true", "false"}
        if isinstance(self.value, int) and not re.match("[-+]?0[xb]", text):
            return not text.lstrip("+-").replace("_", "").isdigit() or int(text) != self.value
        return isinstance(self.value, date) or (isinstance(self.value, float) and ":" in text)


@dataclass(frozen=True)
class YamlSource:
    """Hold the mapping of a YAML file.

    Attributes:
        lines: The line (from 1) of each key by its path.
        names: The paths of keys that are written in other places -> these, the strongest first.
        scalars: What is written for values that are not simply text, by path.
        unset: The problems of variables, by the path of the value.
        literals: Texts with what looks like a variable of ZenML's and is none.
    """

    path: Path
    data: dict[str, Any]
    lines: Mapping[KeyPath, int] = field(repr=False)
    names: Mapping[KeyPath, tuple[KeyPath, ...]] = field(default_factory=dict, kw_only=True)
    scalars: Mapping[KeyPath, Scalar] = field(default_factory=dict, kw_only=True, repr=False)
    unset: Mapping[KeyPath, str] = field(default_factory=dict, kw_only=True)
    literals: Set[str] = field(default=frozenset(), kw_only=True)

    def where(self, key_path: Iterable[str | int]) -> str:
        """Return `file:line` of a key, or of its nearest parent that is in the file."""
        parts = tuple(key_path)
        if parts not in self.lines:
            parts = self.written(parts)
        while parts and parts not in self.lines:
            parts = parts[:-1]
        return f"{self.path}:{self.lines[parts]}" if parts else str(self.path)

    def written(self, path: KeyPath) -> KeyPath:
        """Return the path of a key as it is written."""
        for place, others in self.names.items():
            if path[: len(place)] == place:
                paths = [(*other, *path[len(place) :]) for other in others]
                return next((p for p in paths if p in self.lines or p in self.scalars), paths[0])
        return path

    def scalar(self, path: KeyPath) -> Scalar | None:
        """Return what is written for a value; None if that is simply its text."""
        return self.scalars.get(self.written(path))


def read_yaml(path: Path) -> YamlSource:
    """Read a YAML file that holds one mapping.

    Raises:
        UsageError: The file is missing, unreadable, not UTF-8, not YAML, empty, holds something
            other than a mapping, or has a key twice.
    """
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8") as file:
            text = file.read(MAX_LENGTH + 1)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}.", hint="Check the path.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.") from error
    except OSError as error:
        if path.is_dir():
            raise UsageError(f"{path} is a folder, not a run spec.", hint="Name a file.") from error
        raise UsageError(f"{path} can't be read: {error.strerror or error}.") from error

    data, found = read_value(text, path)
    if data is None and not found.lines:
        hint = "A run spec needs at least the key 'pipeline'."
        raise UsageError(f"{path} is empty.", hint=hint)
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        raise UsageError(
            f"{path}:{found.start}: a run spec is a YAML mapping (key: value), this file holds"
            f" {kind}."
        )
    return YamlSource(
        path, data, found.lines, scalars=found.scalars, unset=found.unset, literals=found.literals
    )


def read_value(text: str, place: Path | str, above: KeyPath = ()) -> tuple[Any, Reading]:
    """Read a value that is written in YAML.

    Args:
        place: Where it is from, for messages.
        above: The path of the key that it is the value of.

    Returns:
        The value, and what else is known of it.

    Raises:
        UsageError: It is not YAML, or too large.
    """
    if len(text) > MAX_LENGTH:
        raise UsageError(f"{place} has more than {MAX_LENGTH:,} characters: it is no run spec.")
    reading = Reading(place, above)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, reading
        reading.start = node.start_mark.line + 1
        reading.is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
        reading.add(node, (), frozenset())
        value = loader.construct_document(node)
        # Only now merged keys stand where they count.
        reading.add_scalars(node, ())
        return value, reading
    except yaml.MarkedYAMLError as error:
        mark, problem, hint = explained(error, text, loader.marks[-1:])
        at = f"{place}:{mark.line + 1}:{mark.column + 1}" if mark else str(place)
        raise UsageError(f"{at}: this is not YAML: {problem}.", hint=hint) from error
    except yaml.reader.ReaderError as error:
        raise UsageError(
            f"{place} is not YAML: it holds the control character {error.character!r} at position"
            f" {error.position}."
        ) from error
    except RecursionError as error:
        raise UsageError(f"{place} is nested too deeply.") from error
    except LookupError as error:
        raise UsageError(f"{place} is not YAML: a value does not fit its tag.") from error
    except (yaml.YAMLError, ValueError, ArithmeticError, AttributeError, TypeError) as error:
        raise UsageError(f"{place} is not YAML: {error}") from error


def read_text(text: str, place: str) -> tuple[str, Reading]:
    """Read a text that is not YAML. As `read_value`."""
    reading = Reading(place)
    mark = yaml.Mark(place, 0, 0, 0, None, 0)
    node = yaml.ScalarNode(_STRING, text, mark, mark, style='"')
    reading.add(node, (), frozenset())
    reading.add_scalars(node, ())
    return str(node.value), reading


@dataclass
class Reading:
    """Collect the line of each key, and check what would cost too much to construct.

    Attributes:
        place: The file, for messages.
        above: The path of the key whose value is read.
        lines: The line of each key by its path below that.
        start: The line of the first value.
        is_plain: Whether it is a text without quotes.
        visited: The keys and values so far, with those that aliases repeat.
        scalars, unset, literals: As in `YamlSource`.
        written: The texts of nodes before their variables were replaced, by their identity.
        length: The characters of the texts with variables.
    """

    place: Path | str
    above: KeyPath = ()
    lines: dict[KeyPath, int] = field(default_factory=dict)
    start: int = 1
    is_plain: bool = False
    visited: int = 0
    scalars: dict[KeyPath, Scalar] = field(default_factory=dict)
    unset: dict[KeyPath, str] = field(default_factory=dict)
    literals: set[str] = field(default_factory=set)
    written: dict[int, str] = field(default_factory=dict)
    length: int = 0

    def add(self, node: yaml.Node, at: KeyPath, open_nodes: frozenset[int]) -> None:
        """Add a value, and all that is in it."""
        where = f"{self.place}:{node.start_mark.line + 1}"
        if id(node) in open_nodes:
            raise UsageError(f"{where}: this alias contains itself.")
        self.visited += 1
        if self.visited > MAX_NODES:
            raise UsageError(
                f"{self.place} has more than {MAX_NODES:,} keys and values once its aliases are"
                " followed."
            )
        open_nodes = open_nodes | {id(node)}
        if isinstance(node, yaml.MappingNode):
            self._add_mapping(node, at, open_nodes)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                child = (*at, index)
                self.lines[child] = item.start_mark.line + 1
                self.add(item, child, open_nodes)
        else:
            path = (*self.above, *at)
            # What a key for anchors holds counts where an alias uses it.
            if "${" in node.value and not (path and str(path[0]).startswith("x-")):
                self._replace_variables(node, at)
            owned = path[2:] if path[:1] == ("steps",) else path
            if owned[:-1] in _VARIABLES_OF and node.tag != _NULL:
                node.tag = _STRING
            _check_scalar(node, where)

    def add_scalars(self, node: yaml.Node, at: KeyPath) -> None:
        """Add what is written for the values in a node that was constructed."""
        if isinstance(node, yaml.MappingNode):
            # A key of the mapping itself comes after one that is merged into it.
            for key, inner in {_key_text(key, ""): inner for key, inner in node.value}.items():
                self.add_scalars(inner, (*at, key))
        elif isinstance(node, yaml.SequenceNode):
            for index, inner in enumerate(node.value):
                self.add_scalars(inner, (*at, index))
        elif id(node) in self.written or (node.value and node.tag in _NUMBERS | _WORDS):
            value = _Loader("").construct_object(node)
            self.scalars[at] = Scalar(node.value, value, self.written.get(id(node)))

    def _replace_variables(self, node: yaml.Node, at: KeyPath) -> None:
        if id(node) in self.written:
            return
        self.written[id(node)] = node.value

        def value_of(found: re.Match[str]) -> str:
            name, default = found[1], found[2]
            if found[0] == "$${":
                return "${"
            if name is None:
                problem = (
                    "a '${' begins no variable. Write ${NAME} or ${NAME:-default}, and '$${' for"
                    " the text '${'."
                )
                self.unset.setdefault(at, problem)
                return found[0]
            value = os.environ.get(name, "")
            if not value and default is not None:
                return str(default)
            if name not in os.environ:
                problem = f"the environment variable {name} is not set. Set it, or write"
                self.unset.setdefault(at, f"{problem} ${{{name}:-default}}.")
            show_as(value, f"${{{name}}}")
            self.length += len(value)
            if self.length > MAX_LENGTH:
                much = f"more than {MAX_LENGTH:,} characters in its variables"
                raise UsageError(f"{self.place} has {much}.")
            return value

        node.value = _VARIABLE.sub(value_of, node.value)
        tag = _STRING
        if isinstance(node, yaml.ScalarNode) and node.style is None and node.value:
            tag = _Loader("").resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
        node.tag = tag if tag in _NUMBERS | _WORDS else _STRING
        if _LEFT_FOR_ZENML.search(node.value):
            self.literals.add(node.value)

    def _add_mapping(self, node: yaml.Node, at: KeyPath, open_nodes: frozenset[int]) -> None:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            where = f"{self.place}:{line}"
            key = _key_text(key_node, where)
            if key == "<<":
                # A key of the mapping itself overrides one that is merged into it.
                self.lines.setdefault(at, line)
                self.add(value_node, at, open_nodes)
                continue
            if key in seen:
                raise UsageError(
                    f"{where}: the key '{key}' is given a second time.",
                    hint="YAML would silently keep only the last one; remove one of them.",
                )
            seen.add(key)
            child = (*at, key)
            self.lines[child] = line
            self.add(value_node, child, open_nodes)


def _check_scalar(node: yaml.Node, where: str) -> None:
    if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
        raise UsageError(
            f"{where}: a number has more than {MAX_DIGITS} characters.",
            hint="Put quotes around it if it is text.",
        )
    if _HALF_A_PAIR.search(node.value):
        raise UsageError(f"{where}: half of a surrogate pair (\\ud800 to \\udfff) is not text.")


def _key_text(node: yaml.Node, where: str) -> str:
    """Return a key's value as a string: `1.50` is "1.5"; `ON`, `~` and a date are their text."""
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.constructor.ConstructorError(None, None, "unhashable key", node.start_mark)
    _check_scalar(node, where)
    if node.value == "<<":
        return "<<"
    if node.tag in _WORDS:
        node.tag = _STRING
    return str(_Loader("").construct_object(node))
