"""Read YAML with the line of each key, and replace variables in its values.

Pure but for reading the file and the environment.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modalrun.errors import UsageError
from modalrun.spec.yaml_mistakes import explained
from modalrun.spec.yaml_nodes import MAX_LENGTH, STRING, KeyPath, Loader, Reading, Scalar
from modalrun.util.nearest import path_hint
from modalrun.util.regular_files import open_regular


@dataclass(frozen=True)
class YamlSource:
    """Hold the mapping of a YAML file.

    Attributes:
        lines: The line (from 1) of each key by its path.
        names: The paths of keys that are written in other places -> these, the strongest first.
        scalars: What is written for values that are not simply text, by path; of a key that is a
            number, by its path and `KEY`.
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
        raise UsageError(f"There is no file {path}.", hint=path_hint(path)) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.") from error
    except OSError as error:
        if path.is_dir():
            raise UsageError(f"{path} is a folder, not a run spec.", hint="Name a file.") from error
        raise UsageError(f"{path} can't be read: {error.strerror or error}.") from error

    data, found = read_value(text, path)
    if data is None and not found.lines:
        hint = "A run spec needs at least the key 'pipeline'."
        # Comments, or Markdown that begins with '#', are text without a key.
        raise UsageError(f"{path} {'has no keys' if text.strip() else 'is empty'}.", hint=hint)
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
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, reading
        reading.start = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            # After '|' and '>' a text begins only in the next line.
            reading.is_plain = node.style is None or (node.style in "|>" and not node.value)
        node = reading.add(node, (), frozenset())
        value = loader.construct_document(node)
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
    node = reading.add(yaml.ScalarNode(STRING, text, mark, mark, style='"'), (), frozenset())
    reading.add_scalars(node, ())
    return str(node.value), reading
