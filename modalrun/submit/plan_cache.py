"""Remember what earlier submissions have led to, by the keys of `fingerprint`, on this machine.

An entry holds names, ids and hashes, never a secret or a value of the environment. Nothing relies
on it: who uses an entry checks that it still holds, and a missing or damaged one costs time only.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MOST = 200
"""Entries that are kept, the newest."""


def load(key: str) -> dict[str, Any]:
    """Return what was stored under a key; {} for nothing."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((_folder() / f"{key}.json").read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def store(key: str, values: Mapping[str, Any]) -> None:
    """Store values of JSON's types under a key, beside those that other names have there.

    A full disk, or a home folder that can't be written, costs the next submission its entry.
    """
    folder = _folder()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = json.dumps({**load(key), **values})
        # Another process may read or write the same entry.
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            file.write(text)
        Path(file.name).replace(folder / f"{key}.json")
        entries = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in entries[:-MOST]:
            path.unlink(missing_ok=True)


def _folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("modalrun")) / "submissions"
