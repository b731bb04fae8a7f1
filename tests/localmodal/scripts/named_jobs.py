"""Start a long job under a name, find it again from elsewhere, look at it, and end it."""

from __future__ import annotations

import modal
from modal.exception import AlreadyExistsError, NotFoundError, SandboxTerminatedError

JOB = "n=0; while true; do n=$((n+1)); echo step $n; sleep 0.2; done"


def start(app: modal.App) -> str:
    try:
        job = modal.Sandbox.create("sh", "-c", JOB, app=app, name="nightly", timeout=300)
    except AlreadyExistsError:
        return "it runs already"
    job.set_tags({"kind": "report", "owner": "ops"})
    return "started"


def main() -> None:
    app = modal.App.lookup("jobs", create_if_missing=True)
    print(start(app), "/", start(app))
    found = modal.Sandbox.from_name("jobs", "nightly")
    lines = iter(found.stdout)
    print([next(lines).strip() for _ in range(2)], found.poll())
    ids = [one.object_id for one in modal.Sandbox.list(app_id=app.app_id, tags={"owner": "ops"})]
    print("listed:", ids == [found.object_id])
    found.terminate()
    try:
        found.wait()
    except SandboxTerminatedError:
        print("terminated with", found.returncode)
    ended = modal.Sandbox.from_id(found.object_id)
    logged = [entry.message.strip() for entry in ended.logs.tail(1000)]
    print("logged:", logged[:2])
    try:
        modal.Sandbox.from_name("jobs", "nightly")
    except NotFoundError:
        print("the name is free")


main()
