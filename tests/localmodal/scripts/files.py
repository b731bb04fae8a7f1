"""Bring a project in, build it, look at what came of it, and fetch that."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from pathlib import Path

import modal


def main() -> None:
    """Bring files in and out."""
    app = modal.App.lookup("files", create_if_missing=True)
    sandbox = modal.Sandbox.create(app=app, image=modal.Image.debian_slim(), timeout=120)
    files = sandbox.filesystem
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "build.py")
        source.write_text("open('/project/out/result.bin', 'wb').write(bytes(range(256)) * 9000)")
        files.make_directory("/project/out")
        files.copy_from_local(source, "/project/build.py")
        print(sandbox.exec("python", "/project/build.py", workdir="/project").wait())
        entry = files.stat("/project/out/result.bin")
        print(entry.name, entry.size, entry.is_file())
        files.copy_to_local("/project/out/result.bin", Path(folder, "result.bin"))
        data = Path(folder, "result.bin").read_bytes()
        print(hashlib.sha256(data).hexdigest()[:12])
    # A whole folder goes through a pipe.
    process = sandbox.exec("tar", "c", "-C", "/project", ".", text=False)
    with tarfile.open(fileobj=io.BytesIO(process.stdout.read())) as archive:
        print(sorted(name for name in archive.getnames() if name != "."))
    print([entry.name for entry in files.list_files("/project")])
    files.remove("/project", recursive=True)
    try:
        files.read_text("/project/build.py")
    except modal.exception.SandboxFilesystemNotFoundError as error:
        print(type(error).__name__)
    sandbox.terminate()


main()
