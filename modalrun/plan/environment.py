"""Check environment variables: their sizes, and whether they give credentials. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from modalrun.errors import UsageError

MAX_VARIABLE = 131_071
"""Bytes of `NAME=value`, in UTF-8 (Linux, `execve(2)`: `MAX_ARG_STRLEN`, with a final NUL)."""

MAX_TOTAL = 1_000_000
"""Bytes of all variables of one owner; Linux allows 2 MiB in all, arguments included."""

_CREDENTIALS = re.compile(
    r"(AWS|B2|GOOGLE|GCP|GCS|CLOUDSDK|AZURE|FSSPEC)_"
    r".*(KEY|TOKEN|SECRET|CREDENTIAL|ROLE|CONNECTION|CLIENT|_FILE)"
)
"""Variables from which the libraries of artifact stores read credentials, or the file or the role
(OIDC) that has them."""

_READ_AT_IMPORT = re.compile("ZENML_(DEBUG|(STORAGE_|CONSOLE_)?LOGGING_[A-Z_]+)")
"""Variables that count only if a process starts with them (`zenml/constants.py`, 0.98.0)."""


def of_process(variables: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that a process must start with: ZenML reads them when it is imported.

    ZenML sets those of a configuration while a step runs.
    """
    return {name: str(v) for name, v in variables.items() if _READ_AT_IMPORT.fullmatch(name)}


def gives_credentials(names: Iterable[str]) -> bool:
    """Return whether one of some environment variables gives credentials for a store."""
    return any(_CREDENTIALS.match(name) for name in names)


def check_environment(owner: str, variables: Mapping[str, Any]) -> None:
    """Check the sizes of environment variables.

    Args:
        owner: Whose they are, such as "the pipeline".
        variables: Their values by name.

    Raises:
        UsageError: No process could be started with them.
    """
    hint = "Write it to a file of the source tree, to a volume, or to an artifact."
    total = 0
    for name, value in variables.items():
        size = len(f"{name}={value}".encode("utf-8", "surrogateescape"))
        total += size + 1
        if size > MAX_VARIABLE:
            raise UsageError(
                f"The environment variable {name} of {owner} has {size:,} bytes; a process can"
                f" have at most {MAX_VARIABLE:,}.",
                hint=hint,
            )
    if total > MAX_TOTAL:
        raise UsageError(
            f"The environment variables of {owner} have {total:,} bytes; at most {MAX_TOTAL:,}"
            " fit beside the arguments of a process.",
            hint=hint,
        )
