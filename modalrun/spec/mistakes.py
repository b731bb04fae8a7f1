"""Several mistakes in one spec, said all at once. Pure."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from modalrun.errors import UsageError


class Mistakes:
    """What is wrong with a spec.

    Attributes:
        found: One error for each mistake, in the order in which they were found.
    """

    def __init__(self) -> None:
        self.found: list[UsageError] = []

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep an error that is raised inside; what comes after the block is checked as well."""
        try:
            yield
        except UsageError as error:
            self.found.append(error)

    def raise_all(self) -> None:
        """Raise one UsageError for all that was found, if anything was."""
        if self.found:
            raise together(self.found)


def together(errors: Sequence[UsageError]) -> UsageError:
    """Several errors as one, in the order of the file: a line each, with what to do next in it."""
    if len(errors) == 1:
        return errors[0]
    numbers: dict[str, int] = {}
    for error in errors:
        number = 0
        said = f"{error.message} {error.hint}" if error.hint else error.message
        for line in said.split("\n"):
            # A line that names no place belongs to the one before it.
            found = re.match(r".*?:(\d+): ", line)
            number = int(found[1]) if found else number
            numbers.setdefault(line, number)
    return UsageError("\n".join(sorted(numbers, key=numbers.__getitem__)))
