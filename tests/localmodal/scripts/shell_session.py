"""The sandbox layer of a benchmark of agents: one shell for a whole task, by a mark for its end."""

from __future__ import annotations

import uuid

import modal


class ShellSession:
    """A shell that keeps its folder and variables between commands."""

    def __init__(self, sandbox: modal.Sandbox) -> None:
        self.process = sandbox.exec("bash", "--norc", text=True, bufsize=1, workdir="/tmp")
        self.lines = iter(self.process.stdout)

    def run(self, command: str) -> tuple[str, int]:
        """Run one; return its output and exit code."""
        mark = uuid.uuid4().hex
        self.process.stdin.write(f"{command} 2>&1\necho\necho {mark} $?\n")
        self.process.stdin.drain()
        output: list[str] = []
        for line in self.lines:
            if line.startswith(mark):
                return "".join(output).strip(), int(line.split()[1])
            output.append(line)
        raise RuntimeError("the shell has ended")

    def close(self) -> int:
        """Leave it."""
        self.process.stdin.write("exit 3\n")
        self.process.stdin.drain()
        return self.process.wait()


def main() -> None:
    """Work on a task."""
    app = modal.App.lookup("shell-session", create_if_missing=True)
    sandbox = modal.Sandbox.create(
        "sleep", "infinity", app=app, image=modal.Image.debian_slim(), timeout=120
    )
    session = ShellSession(sandbox)
    session.run("mkdir work && cd work && export TASK=7")
    print(session.run("basename $PWD; echo $TASK"))
    print(session.run("printf 'def f():\\n    return 41\\n' > code.py")[0] or "silent")
    print(session.run("python -c 'import code_under_test'")[0].splitlines()[-1])
    session.run("sed -i s/41/42/ code.py && mv code.py solved.py")
    print(session.run("python -c 'from solved import f; print(f())'"))
    print(session.close())
    print([sandbox.filesystem.read_text("/tmp/work/solved.py").splitlines()[1].strip()])
    sandbox.terminate()


main()
