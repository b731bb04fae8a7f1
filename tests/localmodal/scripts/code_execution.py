"""Run code that nobody trusts, and tell how it went: fine, wrong, too long, ended."""

from __future__ import annotations

from dataclasses import dataclass

import modal

CASES = {
    "fine": "print(sum(range(10)))",
    "wrong": "raise ValueError('no')",
    "ends": "import os; os._exit(9)",
    "too long": "while True: pass",
    "no network": "import socket; socket.create_connection(('1.1.1.1', 80), timeout=5)",
}


@dataclass
class Outcome:
    """How a piece of code went."""

    code: int
    out: str
    err: str


class CodeRunner:
    """Runs each piece of code in a process of its own, all in one sandbox."""

    def __init__(self, app: modal.App) -> None:
        image = modal.Image.debian_slim()
        self.sandbox = modal.Sandbox.create(app=app, image=image, timeout=120, block_network=True)

    def run(self, code: str, timeout: int = 30) -> Outcome:
        """Run one to its end."""
        process = self.sandbox.exec("python", "-c", code, timeout=timeout)
        out, err = process.stdout.read(), process.stderr.read()
        return Outcome(process.wait(), out, err)


def main() -> None:
    """Run all cases."""
    runner = CodeRunner(modal.App.lookup("code-execution", create_if_missing=True))
    for name, code in CASES.items():
        done = runner.run(code, timeout=2 if name == "too long" else 30)
        last = done.err.strip().splitlines()[-1:] or [done.out.strip()]
        print(f"{name}: {done.code} {last[0].split(':')[0]}".rstrip())
    runner.sandbox.terminate(wait=True)
    print(f"ended: {runner.sandbox.poll()}")


main()
