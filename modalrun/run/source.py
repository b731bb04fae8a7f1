"""Define the record of a run's source tree, by which `modalrun resume` knows the submitted files.

ZenML's metadata holds it, which every step of the run and every user of the ZenML server can
change. So it is checked when it is read, and a resume takes no more from it than hashes to compare:
which files there are, it reads from the source tree itself. It holds no secret.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from modalrun.run.metadata import PREFIX
from modalrun.run.values import adapter

KEY = f"{PREFIX}source"
"""The key of ZenML's metadata that the record is stored under, with the number of the piece."""

PIECE = 60_000
"""Characters in one piece: ZenML stores a value in a column of 65,535 bytes (`TEXT` of MySQL,
`zen_stores/schemas/run_metadata_schemas.py`, 0.98.0)."""

MOST_FILES = 2_000
"""Up to this many hashes of single files are stored with a run; of more, only the total hash."""

MOST_BYTES = 12_000_000
"""A larger record is damaged: `MOST_FILES` paths have at most 4,096 bytes each."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _relative(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or str(PurePosixPath(*parts)) != path:
        raise ValueError("it is not the path of a file below the source root")
    return path


FilePath = Annotated[str, Field(max_length=4_096), AfterValidator(_relative)]
FileHash = Annotated[str, Field(pattern=r"^[0-9a-f]{12}(\+x)?$")]


@dataclass(frozen=True)
class Source:
    """Hold the source tree that a run was submitted with.

    Attributes:
        digest: The hash of its content.
        files: The hash of each file by its path (`source_changes.compare`); empty for very many.
        root: The folder on the submitting machine, for messages alone.
    """

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    files: Annotated[Mapping[FilePath, FileHash], Field(max_length=MOST_FILES)] = field(
        default_factory=dict
    )
    root: Annotated[
        str, Field(max_length=4_096), AfterValidator(lambda text: _CONTROLS.sub("", text))
    ] = ""

    def to_metadata(self) -> dict[str, str]:
        """Return the record as ZenML's metadata, in as many pieces as it takes."""
        text = adapter(Source).dump_json(self, exclude_defaults=True)
        packed = base64.b85encode(zlib.compress(text, 9)).decode("ascii")
        pieces = [packed[start : start + PIECE] for start in range(0, len(packed), PIECE)]
        return {f"{KEY}_{number}": piece for number, piece in enumerate(pieces)}

    @staticmethod
    def from_metadata(metadata: Mapping[str, Any]) -> Source | None:
        """Read the record in a run's metadata; None where there is none.

        Raises:
            ValueError: It is damaged, or somebody has forged it.
        """
        pieces: list[Any] = []
        while (piece := metadata.get(f"{KEY}_{len(pieces)}")) is not None:
            pieces.append(piece)
        if not pieces:
            return None
        try:
            return adapter(Source).validate_json(_unpack(pieces))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = first["loc"][0] if first["loc"] else "the whole"
            problem = f"{place}: {first['msg']}"
        except (TypeError, ValueError, zlib.error):
            problem = "it is not what was stored"
        raise ValueError(f"the record of its files can't be read: {problem}")


def _unpack(pieces: list[Any]) -> bytes:
    """Join the pieces and decompress them: a small text may become a huge one."""
    stream = zlib.decompressobj()
    text = stream.decompress(base64.b85decode("".join(pieces)), MOST_BYTES)
    if not stream.eof:
        raise ValueError("too large, or cut")
    return text
