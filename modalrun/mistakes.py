"""Several mistakes in one spec, said all at once. Pure."""

from __future__ import annotations

import contextlib
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
    """Several errors as one: a line each, with what to do next in the same line."""
    if len(errors) == 1:
        return errors[0]
    lines = [f"{e.message} {e.hint}" if e.hint else e.message for e in errors]
    return UsageError("\n".join(dict.fromkeys(lines)))
