"""Read YAML with the line of each key. Pure but for reading the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modalrun.errors import UsageError

MAX_KEYS = 100_000
"""More keys, once aliases are followed, are taken for an attack ("billion laughs")."""

MAX_LENGTH = 10_000_000
"""Characters. A longer file is data, or has no end."""

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlSource:
    """Hold the mapping of a YAML file, and the line (from 1) of each key by its path."""

    path: Path
    data: dict[str, Any]
    lines: Mapping[KeyPath, int] = field(repr=False)

    def where(self, key_path: Iterable[str | int]) -> str:
        """Return `file:line` of a key, or of its nearest parent that is in the file."""
        parts = tuple(key_path)
        while parts and parts not in self.lines:
            parts = parts[:-1]
        return f"{self.path}:{self.lines[parts]}" if parts else str(self.path)


def read_yaml(path: Path) -> YamlSource:
    """Read a YAML file that holds one mapping.

    Raises:
        UsageError: The file is missing, unreadable, not UTF-8, not YAML, empty, holds something
            other than a mapping, or has a key twice.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_LENGTH + 1)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}.", hint="Check the path.") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a folder, not a run spec.", hint="Name a file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.") from error
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.") from error

    if len(text) > MAX_LENGTH:
        raise UsageError(f"{path} has more than {MAX_LENGTH:,} characters: it is no run spec.")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            hint = "A run spec needs at least the key 'pipeline'."
            raise UsageError(f"{path} is empty.", hint=hint)
        if not isinstance(node, yaml.MappingNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            raise UsageError(
                f"{path}:{node.start_mark.line + 1}: a run spec is a YAML mapping"
                f" (key: value), this file holds {kind}."
            )
        lines: dict[KeyPath, int] = {}
        _collect_lines(path, node, (), lines, frozenset())
        data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise UsageError(f"{place}: this is not YAML: {error.problem or error.context}.") from error
    except yaml.reader.ReaderError as error:
        raise UsageError(
            f"{path} is not YAML: it holds the control character {error.character!r} at position"
            f" {error.position}."
        ) from error
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply.") from error
    except (yaml.YAMLError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    return YamlSource(path, data, lines)


def _collect_lines(
    path: Path, node: yaml.Node, at: KeyPath, lines: dict[KeyPath, int], open_nodes: frozenset[int]
) -> None:
    if id(node) in open_nodes:
        raise UsageError(f"{path}:{node.start_mark.line + 1}: this alias contains itself.")
    if len(lines) > MAX_KEYS:
        raise UsageError(f"{path} has more than {MAX_KEYS:,} keys once its aliases are followed.")
    open_nodes = open_nodes | {id(node)}
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = _key_text(key_node)
            line = key_node.start_mark.line + 1
            if key == "<<":
                # A key of the mapping itself overrides one that is merged into it.
                lines.setdefault(at, line)
                _collect_lines(path, value_node, at, lines, open_nodes)
                continue
            if key in seen:
                raise UsageError(
                    f"{path}:{line}: the key '{key}' is given a second time.",
                    hint="YAML would silently keep only the last one; remove one of them.",
                )
            seen.add(key)
            child = (*at, key)
            lines[child] = line
            _collect_lines(path, value_node, child, lines, open_nodes)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            child = (*at, index)
            lines[child] = item.start_mark.line + 1
            _collect_lines(path, item, child, lines, open_nodes)


def _key_text(node: yaml.Node) -> str:
    """Return a key's value as a string: `1.50` is "1.5", `~` is "None"."""
    if not isinstance(node, yaml.ScalarNode) or node.value == "<<":
        return str(node.value)
    return str(yaml.SafeLoader("").construct_object(node))
