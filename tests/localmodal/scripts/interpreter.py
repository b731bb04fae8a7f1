"""Keep an interpreter in a sandbox, and send it code as lines of JSON; its variables stay."""

from __future__ import annotations

import json
from typing import Any

import modal

DRIVER = """
import contextlib, io, json, sys, traceback
names = {}
for line in sys.stdin:
    out = io.StringIO()
    error = None
    with contextlib.redirect_stdout(out):
        try:
            exec(json.loads(line)["code"], names)
        except BaseException:
            error = traceback.format_exc().splitlines()[-1]
    print(json.dumps({"out": out.getvalue(), "error": error}), flush=True)
"""


class Interpreter:
    """Python in a sandbox."""

    def __init__(self, app: modal.App) -> None:
        self.sandbox = modal.Sandbox.create(
            "python", "-c", DRIVER, app=app, image=modal.Image.debian_slim(), timeout=120
        )
        self.answers = iter(self.sandbox.stdout)

    def run(self, code: str) -> Any:
        """Run code; return what it printed, or its error."""
        self.sandbox.stdin.write(json.dumps({"code": code}) + "\n")
        self.sandbox.stdin.drain()
        answer = json.loads(next(self.answers))
        return answer["error"] or answer["out"].strip()

    def close(self) -> int:
        """End it."""
        self.sandbox.stdin.write_eof()
        self.sandbox.stdin.drain()
        self.sandbox.wait()
        return self.sandbox.returncode


def main() -> None:
    """Use it."""
    interpreter = Interpreter(modal.App.lookup("interpreter", create_if_missing=True))
    interpreter.run("x = 20")
    interpreter.run("import math\ndef double(n): return 2 * n")
    print(interpreter.run("print(double(x) + math.floor(2.5))"))
    print(interpreter.run("print(y)"))
    print(interpreter.run("print('ä' * 3)"))
    print(interpreter.close())


main()
