"""A pool of warm sandboxes: whoever needs one takes it from a queue and puts another one there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import modal

SIZE = 3


def add(app: modal.App, pool: modal.Queue) -> None:
    """Start a sandbox and offer it."""
    sandbox = modal.Sandbox.create(
        "sleep", "infinity", app=app, image=modal.Image.debian_slim(), timeout=120
    )
    pool.put(sandbox.object_id)


def work(app: modal.App, pool: modal.Queue, results: modal.Dict, number: int) -> None:
    """Compute in a sandbox that is ready."""
    sandbox = modal.Sandbox.from_id(pool.get(timeout=60))
    add(app, pool)
    process = sandbox.exec("python", "-c", f"print({number} ** 2)")
    results[number] = int(process.stdout.read())
    process.wait()
    sandbox.terminate(wait=True)


def main() -> None:
    """Share a few sandboxes among more jobs."""
    app = modal.App.lookup("queue-pool", create_if_missing=True)
    pool = modal.Queue.from_name("pool", create_if_missing=True)
    with modal.Dict.ephemeral() as results, ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: add(app, pool), range(SIZE)))
        list(threads.map(lambda number: work(app, pool, results, number), range(6)))
        print(sorted(results.items()))
    print("ready:", pool.len())
    while rest := pool.get(block=False):
        modal.Sandbox.from_id(rest).terminate(wait=True)
    print("left:", len(list(modal.Sandbox.list(app_id=app.app_id))))


if __name__ == "__main__":
    main()
