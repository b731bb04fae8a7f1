"""Measure what a volume adds to the start and the end of a sandbox.

    python benchmarks/volumes.py [--folder FOLDER]

Prints the seconds of CPU time in which a sandbox gets its own files of volumes of several sizes,
commits one change while it runs, and another one at its end. No sandbox is started. The figures
depend on the disk of FOLDER, a temporary folder by default.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.volume_trees import Mount, VolumeTree

VOLUMES = {"1,000 files of 1 KiB": (1000, 1024), "10,000 files of 1 KiB": (10_000, 1024)}
VOLUMES |= {"64 files of 1 MiB": (64, 2**20), "40 files of 100 MiB": (40, 100 * 2**20)}


def measure(state: StateDir, name: str, count: int, size: int) -> None:
    volume = f"vo-{count}-{size}"
    for number in range(count):
        path = state.volumes / volume / f"{number % 100}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(min(size, 2**20)))
        os.truncate(path, size)
    tree = VolumeTree(state, Mount(volume, "/v"), state.sandbox("sb-1") / "volumes" / volume)
    took = []
    for last in (None, False, True):
        begin = time.process_time()
        if last is None:
            tree.open()
        else:
            tree.commit(last=last)
        took.append(time.process_time() - begin)
        (tree.folder / "new").write_text(str(last))
    start, commit, end = took
    print(f"{name:<24} start {start:6.3f} s   commit {commit:6.3f} s   end {end:6.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as folder:
        state = StateDir(Path(folder) / "state")
        state.create()
        for name, (count, size) in VOLUMES.items():
            measure(state, name, count, size)


if __name__ == "__main__":
    main()
