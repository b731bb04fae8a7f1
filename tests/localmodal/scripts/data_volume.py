"""Bring files into sandboxes and out again: by the image, a volume, and the filesystem API."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import modal


def main(folder: Path) -> None:
    (folder / "words.txt").write_text("one\ntwo\nthree\n")
    app = modal.App.lookup("data-volume", create_if_missing=True)
    image = modal.Image.debian_slim().add_local_file(folder / "words.txt", "/input/words.txt")
    with modal.Volume.ephemeral() as volume:
        with volume.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"4\n"), "/more/four.txt")
        sandbox = modal.Sandbox.create(
            app=app, image=image, volumes={"/data": volume}, timeout=120, workdir="/work"
        )
        lines = sandbox.exec("sh", "-c", "cat /input/words.txt /data/more/four.txt | wc -l")
        print("lines:", lines.stdout.read().strip())

        sandbox.filesystem.write_text("1,2\n3,4\n", "/work/table.csv")
        code = "print(sum(int(n) for line in open('table.csv') for n in line.split(',')))"
        print("sum:", sandbox.exec("python", "-c", code).stdout.read().strip())

        copy = "mkdir -p /data/out && cp /work/table.csv /data/out/ && rm /work/table.csv"
        print("copied:", sandbox.exec("sh", "-c", copy).wait())
        print("left in /work:", [entry.name for entry in sandbox.filesystem.list_files("/work")])
        sandbox.terminate(wait=True)
        print("stored:", b"".join(volume.read_file("out/table.csv")).decode().splitlines())


with tempfile.TemporaryDirectory() as name:
    main(Path(name))
