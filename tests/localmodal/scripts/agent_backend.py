"""The sandbox layer of an agent's framework: run shell commands, upload, download, all async."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import modal


@dataclass
class CommandResult:
    """What an agent gets to see."""

    output: str
    exit_code: int
    truncated: bool = False


class SandboxBackend:
    """What a framework asks of a sandbox."""

    def __init__(self, sandbox: modal.Sandbox, limit: int = 200) -> None:
        self.sandbox = sandbox
        self.limit = limit

    @classmethod
    async def start(cls, name: str) -> SandboxBackend:
        """Create a sandbox."""
        app = await modal.App.lookup.aio(name, create_if_missing=True)
        image = modal.Image.debian_slim().env({"AGENT": "yes"})
        return cls(await modal.Sandbox.create.aio(app=app, image=image, timeout=120))

    async def execute(
        self, command: str, *, timeout: int = 30, env: dict[str, str | None] | None = None
    ) -> CommandResult:
        """Run a command of a shell."""
        process = await self.sandbox.exec.aio("bash", "-c", command, timeout=timeout, env=env)
        out, err = await asyncio.gather(process.stdout.read.aio(), process.stderr.read.aio())
        code = await process.wait.aio()
        text = out + err
        return CommandResult(text[: self.limit], code, len(text) > self.limit)

    async def upload(self, files: dict[str, bytes]) -> None:
        """Write files."""
        for path, data in files.items():
            await self.sandbox.filesystem.write_bytes.aio(data, path)

    async def download(self, path: str) -> bytes:
        """Read a file."""
        return await self.sandbox.filesystem.read_bytes.aio(path)


async def main() -> None:
    """Be an agent."""
    backend = await SandboxBackend.start("agent-backend")
    await backend.upload({"/repo/a.txt": b"alpha\n", "/repo/sub/b.txt": b"beta\n"})
    results = await asyncio.gather(
        backend.execute("cat /repo/a.txt /repo/sub/b.txt | sort -r"),
        backend.execute("echo $AGENT $MORE; exit 4", env={"MORE": "more"}),
        backend.execute("echo to stderr >&2; false"),
        backend.execute("seq 1000"),
        backend.execute("sleep 60", timeout=2),
    )
    for result in results:
        print(repr(result.output[:20]), result.exit_code, result.truncated)
    await backend.execute("sed -i s/alpha/omega/ /repo/a.txt")
    print(await backend.download("/repo/a.txt"))
    await backend.sandbox.terminate.aio()


asyncio.run(main())
