"""Give sandboxes a root of their own where this machine can, and say why where it cannot."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from modalrun.localmodal.sandbox import rootfs
from modalrun.localmodal.sandbox.live import Launch
from modalrun.localmodal.sandbox.nursery import Nursery
from modalrun.localmodal.sandbox.process import Command, SandboxProcess
from modalrun.localmodal.sandbox.view import Machine, is_systems
from modalrun.localmodal.server_info import UNISOLATED, UNISOLATED_VARIABLE
from modalrun.localmodal.storage.paths import StateDir

log = logging.getLogger(__name__)

_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")

_MISPLACED = (
    "Nothing can be mounted at {path}: on the local Modal server a sandbox has the system's own"
    " there. Volumes and files can be at paths such as /data, and at new ones below /etc and /usr."
)


class Isolation:
    """How the sandboxes of a server are isolated.

    Attributes:
        problem: Why they have no root of their own; empty if they have.
        wanted: Whether they shall have one.
    """

    def __init__(self, state: StateDir, *, wanted: bool) -> None:
        self._state = state
        self.wanted = wanted
        self.problem = "" if wanted else f"{UNISOLATED_VARIABLE} is set"

    @cached_property
    def _machine(self) -> Machine:
        # Not before the nursery starts, which takes as long.
        return Machine(home=os.path.realpath(Path.home()), state=str(self._state.root))

    @property
    def works(self) -> bool:
        """Whether sandboxes have a root of their own."""
        return not self.problem

    def status(self) -> dict[str, object]:
        """Return what `modalrun local status` shows."""
        return {"works": self.works, "wanted": self.wanted, "problem": self.problem}

    async def probe(self, nursery: Nursery) -> None:
        """Find out whether a sandbox can have a root of its own, by one that starts Python."""
        if not self.wanted:
            log.warning(UNISOLATED)
            return
        if sys.platform != "linux":
            self.problem = "only Linux has the namespaces that it needs"
            return
        folder = self._state.sandbox("probe")
        printed: list[bytes] = []
        process = SandboxProcess(lambda _, data: printed.append(data), lambda: False)
        try:
            rootfs.remove(folder)
            rootfs.build(folder, (), {}, "/", prefix=sys.prefix, isolated=True)
            view = self._machine.view(folder / "root", (), {}, (), prefix=sys.prefix, variables={})
            words = [sys.executable, "-I", "-S", "-c", ""]
            command = Command(words, {}, Path("/"), view=view)
            if not await process.start(nursery, command):
                self.problem = "the process that starts sandboxes does not answer"
            elif code := (await process.exited).code:
                text = b"".join(printed).decode("utf-8", "replace")
                self.problem = f"Python ends there with {code}: {text.strip()}"
        except OSError as error:
            self.problem = str(error)
            with contextlib.suppress(OSError):
                if _APPARMOR.read_text("ascii").strip() != "0":
                    self.problem += f" ({_APPARMOR} is not 0)"
        rootfs.remove(folder)
        if self.problem:
            log.warning("sandboxes have no root of their own: %s", self.problem)

    def refusal(self, launch: Launch, workdir: str) -> str:
        """Return why a sandbox cannot be what it should be; empty if it can.

        Without a root of its own, programs find only what is below its working folder or in
        PYTHONPATH.
        """
        places = (*launch.volumes.folders, *(file.path for file in launch.files))
        if self.works:
            wrong = next((path for path in places if is_systems(path)), "")
            return _MISPLACED.format(path=wrong) if wrong else ""
        if not self.wanted:
            return ""
        way_out = (
            f" A sandbox on this machine has no root of its own: {self.problem}. To run sandboxes"
            f" without isolation: 'modalrun local stop', and set {UNISOLATED_VARIABLE}=1."
        )
        if not launch.network:
            return f"The network cannot be blocked.{way_out}"
        reached = [workdir, *launch.variables.get("PYTHONPATH", "").split(":")]
        for path in places:
            if not any(folder and Path(path).is_relative_to(folder) for folder in reached):
                return f"Nothing can be at {path} but at $MODALRUN_LOCAL_ROOT{path}.{way_out}"
        return ""

    def not_kept(self, launch: Launch) -> list[str]:
        """Return warnings about what a sandbox without a root of its own does not get."""
        if self.works:
            return []
        what = [f"'read_only' of the volume at {path}" for path in launch.volumes.read_only]
        if not launch.network:
            what.append("'block_network'")
        why = f"its sandboxes have no root of their own: {self.problem}"
        return [f"The local Modal server ignores {one} ({why})" for one in what]

    def command(self, command: Command, root: Path, launch: Launch) -> Command:
        """Complete the command of a sandbox: its environment, and what it sees.

        Args:
            command: The command with the paths of the sandbox, and the variables that identify it.
            root: The folder of its root.
            launch: Its files, volumes and variables.

        Raises:
            ValueError: A path leaves the sandbox.
        """
        variables, recipe = launch.variables, launch.recipe
        identity = command.env
        env = rootfs.environment(root, recipe, variables, identity, isolated=self.works)
        if not self.works:
            argv = rootfs.arguments(command.argv, root)
            return replace(command, argv=argv, env=env, cwd=rootfs.inside(root, str(command.cwd)))
        own = [file.path for file in launch.files]
        if not command.cwd.is_dir():
            own.append(str(command.cwd))
        volumes, read_only = launch.volumes.folders, launch.volumes.read_only
        prefix = rootfs.python_prefix(recipe, variables)
        view = self._machine.view(root, own, volumes, read_only, prefix=prefix, variables=env)
        shared = [path for source, path, writable in view.mounts if source and writable]
        if any(path.startswith("/tmp/") for path in shared):  # noqa: S108
            # A step may empty its temporary folder, but not what it shares with this machine.
            env.setdefault("TMPDIR", "/var/tmp")  # noqa: S108
        return replace(command, env=env, view=view, network=launch.network)
