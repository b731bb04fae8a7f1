"""Follow a build: its lines as they come, the files that it makes, and stop it."""

from __future__ import annotations

import modal
from modal.types import FileWatchEventType

BUILD = "i=0; while :; do i=$((i+1)); echo built $i; touch /build/object-$i.o; sleep 0.05; done"


def main() -> None:
    """Watch."""
    app = modal.App.lookup("watched-build", create_if_missing=True)
    sandbox = modal.Sandbox.create(app=app, image=modal.Image.debian_slim(), timeout=120)
    sandbox.filesystem.make_directory("/build")
    process = sandbox.exec("sh", "-c", BUILD, bufsize=1)
    print([line.strip() for line, _ in zip(process.stdout, range(2), strict=False)])
    events = sandbox.filesystem.watch("/build", filter=[FileWatchEventType.Create], timeout=30)
    event = next(iter(events))
    print(event.type.name, event.paths[0].startswith("/build/object-"))
    print(process.poll())
    sandbox.terminate(wait=True)
    print(sandbox.returncode)


main()
