"""Show the local Modal server: its status, variables for a shell, and output of sandboxes."""

from __future__ import annotations

import codecs
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from modalrun.output.terminal.sanitize import harmless
from modalrun.output.terminal.writer import write_pieces
from modalrun.util.timeformat import duration_of

_UNSET = {
    "sh": "unset {}",
    "fish": "set -e {}",
    "powershell": "Remove-Item -ErrorAction SilentlyContinue Env:{}",
}


def status_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Render the status of a running server."""
    idle = status["idle_timeout_seconds"]
    values = {
        "url": status["url"],
        "pid": status["pid"],
        "version": status["version"],
        "state folder": status["state_dir"],
        "up": duration_of(status["uptime_seconds"], whole=True),
        "idle timeout": duration_of(idle, whole=True) if idle else "never",
        "refuses": "only bad names and paths (lenient)"
        if status["lenient"]
        else f"what Modal does not offer, by {status['catalog']}",
        "python": "of the image (isolated)" if status["isolated_python"] else status["python"],
        "isolation": _isolation(status["isolation"]),
        "preloaded": _preloaded(status["preload"]),
        "apps": status["apps"],
        "sandboxes": f"{status['sandboxes']}, {len(status['running'])} running",
    }
    for name, value in values.items():
        yield harmless(f"{name:<13} {value}", colours=False)
    if status.get("faults"):
        yield harmless(f"{'problem':<13} {status['faults']}", colours=False)
    if status["running"]:
        yield "\nRunning sandboxes (resources as requested; they are not enforced):"
    for sandbox in status["running"]:
        age = duration_of(time.time() - sandbox["created_at"], whole=True)
        names = f"  {sandbox['id']}  {sandbox['app']}  {sandbox['name'] or '-'}  {age}"
        names += "" if sandbox["scheduled"] else ", waiting for a place"
        yield harmless(names, colours=False)
        requested = dict(sandbox["requested"])
        requested["region"] = ", ".join(requested["regions"])
        labels = {"cpu": "cpu", "memory_mib": "memory MiB", "gpu": "gpu", "cloud": "cloud"}
        labels["region"] = "region"
        parts = [
            f"{label} {value:g}" if isinstance(value, float) else f"{label} {value}"
            for key, label in labels.items()
            if (value := requested[key])
        ]
        if parts:
            yield harmless(f"    {'; '.join(parts)}", colours=False)


def _isolation(isolation: Mapping[str, Any]) -> str:
    """Render whether sandboxes see this machine's files."""
    if isolation["works"]:
        return "each sandbox has a root of its own"
    return f"none: {isolation['problem']}"


def _preloaded(preload: Mapping[str, Any]) -> str:
    """Render which packages are in memory before a sandbox starts."""
    packages = ", ".join(sorted({name.partition(".")[0] for name in preload.get("modules", ())}))
    match preload["state"]:
        case "ready":
            return f"{packages}, in {preload['seconds']:.1f} s"
        case "loading":
            return f"{packages}, being imported"
        case "failed":
            return f"nothing: {preload['problem']}"
        case _:
            return "nothing"


def export_lines(variables: Mapping[str, str], shell: str) -> Iterator[str]:
    """Render commands of a shell that set variables."""
    for name, value in variables.items():
        if shell == "fish":
            quoted = value.replace("\\", "\\\\").replace("'", "\\'")
            yield f"set -gx {name} '{quoted}'"
        elif shell == "powershell":
            quoted = value.replace("'", "''")
            yield f"$Env:{name} = '{quoted}'"
        else:
            yield f"export {name}={shlex.quote(value)}"


def unset_lines(names: Iterable[str], shell: str) -> Iterator[str]:
    """Render commands of a shell that remove variables."""
    for name in names:
        # NO_PROXY may have been the user's own; that this machine stays in it does no harm.
        if name.lower() != "no_proxy":
            yield _UNSET[shell].format(name)


def write_output(parts: Iterable[bytes]) -> None:
    """Write output of a sandbox or of the server to stdout."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    write_pieces(map(decode, parts))
