"""Read the nodes of a YAML text: the line of each key, variables, aliases, merge keys.

Pure but for reading the environment.
"""

from __future__ import annotations

import copy
import os
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from modalrun.errors import UsageError, show_as

MAX_NODES = 100_000
"""More keys and values, once aliases are followed, are taken for an attack ("billion laughs")."""

MAX_LENGTH = 1_000_000
"""Characters. A longer file is data, or has no end."""

MAX_DIGITS = 100
"""Characters of a number. To read one, and to show it, costs the square of its length."""

_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
STRING = "tag:yaml.org,2002:str"
_WORDS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "null", "timestamp"))
_MERGE = "tag:yaml.org,2002:merge"
_VALUE = "tag:yaml.org,2002:value"

_HALF_A_PAIR = re.compile("[\ud800-\udfff]")

_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\})?")
"""`$${`, `${NAME}`, `${NAME:-default}`, or the begin of what is neither."""

_LEFT_FOR_ZENML = re.compile(r"\$\{[a-zA-Z0-9_]+\}")
"""What ZenML would replace (`zenml/utils/env_utils.py`, 0.98.0)."""

KeyPath = tuple[str | int, ...]

KEY = "[key]"
"""Follows the path of a value where its key is meant, in pydantic's errors and in `scalars`."""

_VARIABLES_OF: frozenset[KeyPath] = frozenset(
    {
        ("environment",),
        ("settings", "docker", "environment"),
        ("settings", "docker", "runtime_environment"),
    }
)
"""Mappings of environment variables, of the pipeline or a step: their values are text."""


def is_variable(path: KeyPath) -> bool:
    """Return whether a key is an environment variable of the pipeline or a step."""
    owned = path[2:] if path[:1] == ("steps",) else path
    return owned[:-1] in _VARIABLES_OF


class Loader(yaml.SafeLoader):
    """Reads YAML 1.1, and `1e-3` as the number that it is in YAML 1.2."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Return the tag of a node without one; `=`, `2026-02-31` and `0b_` are text."""
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        if tag == _VALUE:
            return STRING
        if tag in _NUMBERS | _WORDS and len(value) <= MAX_DIGITS:
            try:
                self.yaml_constructors[tag](self, yaml.ScalarNode(tag, value))
            except ValueError:
                return STRING
        return tag


Loader.add_implicit_resolver(
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
        shown: The text with `${NAME}` in place of what this machine's environment has, which may be
            secret; None without any variables.
    """

    text: str
    value: Any = field(repr=False)
    written: str | None = None
    shown: str | None = None

    @property
    def is_surprising(self) -> bool:
        """Whether people read something else: `NO` is false in YAML 1.1, 010 is 8, 1:30 is 90."""
        text = self.text.lower()
        if isinstance(self.value, bool):
            return text not in {"true", "false"}
        if isinstance(self.value, int) and not re.match("[-+]?0[xb]", text):
            return not re.fullmatch("[-+]?[0-9]+(_[0-9]+)*", text) or int(text) != self.value
        return isinstance(self.value, date) or (isinstance(self.value, float) and ":" in text)


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
        written: `written` and `shown` of the `Scalar` of nodes with variables, by their identity.
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
    written: dict[int, tuple[str, str]] = field(default_factory=dict)
    length: int = 0

    def add(self, node: yaml.Node, at: KeyPath, open_nodes: frozenset[int]) -> yaml.Node:
        """Add a value, and all that is in it.

        Returns:
            The value without aliases and merge keys, so that each place has nodes of its own.
        """
        open_nodes = self._visit(node, open_nodes)
        node = copy.copy(node)
        if isinstance(node, yaml.MappingNode):
            pairs = []
            for key, (key_node, value_node) in self._pairs(node, open_nodes).items():
                child = (*at, key)
                self.lines[child] = key_node.start_mark.line + 1
                pairs.append((key_node, self.add(value_node, child, open_nodes)))
            node.value = pairs
        elif isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                child = (*at, index)
                self.lines[child] = item.start_mark.line + 1
                items.append(self.add(item, child, open_nodes))
            node.value = items
        else:
            path = (*self.above, *at)
            # What a key for anchors holds counts where an alias uses it.
            if "${" in node.value and not (path and str(path[0]).startswith("x-")):
                self._replace_variables(node, at)
            if is_variable(path) or node.tag == _MERGE:
                node.tag = STRING
            _check_scalar(node, self._where(node))
        return node

    def add_scalars(self, node: yaml.Node, at: KeyPath) -> None:
        """Add what is written for the values and keys in a node that was constructed."""
        if isinstance(node, yaml.MappingNode):
            for key, inner in node.value:
                child = (*at, _key_text(key, ""))
                self.add_scalars(inner, child)
                if key.tag in _NUMBERS:
                    own = (*child, KEY)
                    self.scalars[own] = Scalar(key.value, Loader("").construct_object(key))
        elif isinstance(node, yaml.SequenceNode):
            for index, inner in enumerate(node.value):
                self.add_scalars(inner, (*at, index))
        elif id(node) in self.written or (node.value and node.tag in _NUMBERS | _WORDS):
            value = Loader("").construct_object(node)
            self.scalars[at] = Scalar(node.value, value, *self.written.get(id(node), ()))

    def _replace_variables(self, node: yaml.Node, at: KeyPath) -> None:
        written: str = node.value
        taken: dict[str, str] = {}

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
            taken[found[0]] = f"${{{name}}}"
            show_as(value, taken[found[0]])
            self.length += len(value)
            if self.length > MAX_LENGTH:
                much = f"more than {MAX_LENGTH:,} characters in its variables"
                raise UsageError(f"{self.place} has {much}.")
            return value

        node.value = _VARIABLE.sub(value_of, written)
        shown = _VARIABLE.sub(lambda found: taken.get(found[0]) or value_of(found), written)
        self.written[id(node)] = written, shown
        tag = STRING
        if isinstance(node, yaml.ScalarNode) and node.style is None and node.value:
            tag = Loader("").resolve(yaml.ScalarNode, node.value, (True, False))
        node.tag = tag if tag in _NUMBERS | _WORDS else STRING
        if _LEFT_FOR_ZENML.search(node.value):
            self.literals.add(node.value)

    def _pairs(
        self, node: yaml.Node, open_nodes: frozenset[int]
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return the keys and values of a mapping, with those that are merged into it."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                is_list = isinstance(value_node, yaml.SequenceNode)
                # Of a list, the first is the strongest.
                for one in reversed(value_node.value) if is_list else [value_node]:
                    if not isinstance(one, yaml.MappingNode):
                        problem = "only mappings can be merged"
                        raise yaml.constructor.ConstructorError(None, None, problem, one.start_mark)
                    pairs = self._pairs(one, self._visit(one, open_nodes))
                    self._count(len(pairs))
                    merged.update(pairs)
                continue
            where = self._where(key_node)
            own_node = copy.copy(key_node)
            key = _key_text(own_node, where)
            if key in own:
                raise UsageError(
                    f"{where}: the key '{key}' is given a second time.",
                    hint="YAML would silently keep only the last one; remove one of them.",
                )
            own[key] = own_node, value_node
        return {**merged, **own}

    def _visit(self, node: yaml.Node, open_nodes: frozenset[int]) -> frozenset[int]:
        """Count a node, and return the open ones with it."""
        if id(node) in open_nodes:
            raise UsageError(f"{self._where(node)}: this alias contains itself.")
        self._count(1)
        return open_nodes | {id(node)}

    def _count(self, nodes: int) -> None:
        self.visited += nodes
        if self.visited > MAX_NODES:
            raise UsageError(
                f"{self.place} has more than {MAX_NODES:,} keys and values once its aliases are"
                " followed."
            )

    def _where(self, node: yaml.Node) -> str:
        return f"{self.place}:{node.start_mark.line + 1}"


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
    if node.tag in _WORDS:
        node.tag = STRING
    return str(Loader("").construct_object(node))
