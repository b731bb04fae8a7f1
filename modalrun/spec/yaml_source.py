"""Read YAML with the line of each key. Pure but for reading the file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modalrun.errors import UsageError
from modalrun.util.regular_files import open_regular

MAX_NODES = 100_000
"""More keys and values, once aliases are followed, are taken for an attack ("billion laughs")."""

MAX_LENGTH = 1_000_000
"""Characters. A longer file is data, or has no end."""

MAX_DIGITS = 100
"""Characters of a number. To read one, and to show it, costs the square of its length."""

_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})

_HALF_A_PAIR = re.compile("[\ud800-\udfff]")

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlSource:
    """Hold the mapping of a YAML file.

    Attributes:
        lines: The line (from 1) of each key by its path.
        names: The paths of keys that are written in another place -> that place.
    """

    path: Path
    data: dict[str, Any]
    lines: Mapping[KeyPath, int] = field(repr=False)
    names: Mapping[KeyPath, KeyPath] = field(default_factory=dict, kw_only=True)

    def where(self, key_path: Iterable[str | int]) -> str:
        """Return `file:line` of a key, or of its nearest parent that is in the file."""
        parts = tuple(key_path)
        while parts and parts not in self.lines:
            parts = parts[:-1]
        return f"{self.path}:{self.lines[parts]}" if parts else str(self.path)

    def written(self, path: KeyPath) -> KeyPath:
        """Return the path of a key as it is written."""
        found = next((place for place in self.names if path[: len(place)] == place), None)
        return path if found is None else (*self.names[found], *path[len(found) :])


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

    if len(text) > MAX_LENGTH:
        raise UsageError(f"{path} has more than {MAX_LENGTH:,} characters: it is no run spec.")
    data, positions = _parse(text, path)
    if data is None and not positions.lines:
        hint = "A run spec needs at least the key 'pipeline'."
        raise UsageError(f"{path} is empty.", hint=hint)
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        raise UsageError(
            f"{path}:{positions.start}: a run spec is a YAML mapping (key: value), this file holds"
            f" {kind}."
        )
    return YamlSource(path, data, positions.lines)


def read_value(text: str, place: str) -> Any:
    """Read a value that is written in YAML, within the same limits as a file.

    Args:
        text: The YAML.
        place: Where it is from, for messages.

    Raises:
        UsageError: It is not YAML, or too large.
    """
    if len(text) > MAX_LENGTH:
        raise UsageError(f"{place} has more than {MAX_LENGTH:,} characters.")
    return _parse(text, place)[0]


def _parse(text: str, place: Path | str) -> tuple[Any, _Positions]:
    """Return the value in a YAML text, and its positions; errors begin with the place."""
    positions = _Positions(place)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, positions
        positions.start = node.start_mark.line + 1
        positions.add(node, (), frozenset())
        return loader.construct_document(node), positions
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{place}:{mark.line + 1}:{mark.column + 1}" if mark else str(place)
        raise UsageError(f"{at}: this is not YAML: {error.problem or error.context}.") from error
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


@dataclass
class _Positions:
    """Collect the line of each key, and check what would cost too much to construct.

    Attributes:
        place: The file, for messages.
        lines: The line of each key by its path.
        start: The line of the first value.
        visited: The keys and values so far, with those that aliases repeat.
    """

    place: Path | str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    start: int = 1
    visited: int = 0

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
            _check_scalar(node, where)

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
    """Return a key's value as a string: `1.50` is "1.5", `~` is "None"."""
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.constructor.ConstructorError(None, None, "unhashable key", node.start_mark)
    _check_scalar(node, where)
    if node.value == "<<":
        return "<<"
    return str(yaml.SafeLoader("").construct_object(node))
