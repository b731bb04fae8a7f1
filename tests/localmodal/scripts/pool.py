"""A pool of sandboxes that work off a queue, and put results into another one."""

from __future__ import annotations

import json
import uuid

import modal

WORKERS, TASKS = 3, 9

WORKER = """
import json, sys
for line in sys.stdin:
    task = json.loads(line)
    print(json.dumps({"task": task["number"], "square": task["number"] ** 2}), flush=True)
"""


def main() -> None:
    """Share tasks among sandboxes."""
    app = modal.App.lookup("pool", create_if_missing=True)
    name = f"tasks-{uuid.uuid4().hex[:8]}"
    tasks = modal.Queue.from_name(name, create_if_missing=True)
    results = modal.Dict.from_name(f"{name}-results", create_if_missing=True)
    tasks.put_many(list(range(TASKS)))
    pool = [
        modal.Sandbox.create(
            "python", "-c", WORKER, app=app, image=modal.Image.debian_slim(), timeout=120
        )
        for _ in range(WORKERS)
    ]
    answers = [iter(sandbox.stdout) for sandbox in pool]
    turn = 0
    while (number := tasks.get(block=False)) is not None:
        sandbox, lines = pool[turn % WORKERS], answers[turn % WORKERS]
        sandbox.stdin.write(json.dumps({"number": number}) + "\n")
        sandbox.stdin.drain()
        answer = json.loads(next(lines))
        results[answer["task"]] = answer["square"]
        turn += 1
    for sandbox in pool:
        sandbox.stdin.write_eof()
        sandbox.stdin.drain()
        sandbox.wait()
    print(tasks.len(), [results[number] for number in range(TASKS)])
    print([sandbox.returncode for sandbox in pool])
    modal.Queue.objects.delete(name)
    modal.Dict.objects.delete(f"{name}-results")


main()
