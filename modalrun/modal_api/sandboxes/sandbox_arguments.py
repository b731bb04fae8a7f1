"""Turn sandbox specs into the arguments of `modal.Sandbox.create`, for run and step sandboxes."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from modalrun.run.contract import CODE_FOLDER, CREATED, GPU
from modalrun.run.run_plan import RunPlan
from modalrun.run.sandbox_spec import SandboxSpec

if TYPE_CHECKING:
    import modal


class SandboxArguments:
    """Make the arguments for the sandboxes of one run."""

    def __init__(
        self,
        plan: RunPlan,
        secrets: Mapping[str, str],
        client: modal.Client | None = None,
        *,
        package: bool,
    ) -> None:
        """
        Args:
            plan: The run.
            secrets: Environment variables that travel to every sandbox as a Modal secret.
            client: The connection that secrets and volumes are looked up with; None for that of
                the creation.
            package: Whether modalrun's source is mounted (`mounts.with_files`); otherwise
                sandboxes have the Python of this process, and its modules.
        """
        import modal

        self._environment = plan.settings.modal_environment
        self._client = client
        self._dropped = () if package else ("PYTHONPATH",)
        # The server may run in another virtual environment (`localmodal/sandbox/rootfs.py`).
        self._added = {} if package else {"MODALRUN_LOCAL_PYTHON": sys.prefix}
        self._own_secret = modal.Secret.from_dict(dict(secrets))
        self._named: dict[str, Any] = {}

    def of(self, spec: SandboxSpec, gpu: str | None) -> dict[str, Any]:
        """Return the keyword arguments for a spec and one of its GPUs, without app and image."""
        import modal

        env = {name: value for name, value in spec.env.items() if name not in self._dropped}
        secrets = [self._once(modal.Secret.from_name, name) for name in spec.secrets]
        volumes = {
            path: self._once(modal.Volume.from_name, name) for name, path in spec.volumes.items()
        }
        asked = spec.resources
        # A note of the plan tells that the local Modal server keeps no limits.
        warnings.filterwarnings("ignore", ".* ignores 'definition.resources")
        # A GPU may have been waited for, which Modal's timeout does not count.
        own = {GPU: gpu} if gpu else {CREATED: str(time.time())}
        return {
            "name": spec.name,
            "tags": dict(spec.tags),
            "env": {**self._added, **env, **own},
            # Ours last: a named secret must not replace what the run needs to reach ZenML.
            "secrets": [*secrets, self._own_secret],
            "volumes": volumes,
            "timeout": spec.timeout,
            "workdir": CODE_FOLDER,
            "gpu": gpu,
            # With a limit, a pair of request and limit.
            "cpu": asked.cpu if asked.cpu_limit is None else (asked.cpu, asked.cpu_limit),
            "memory": (
                asked.memory if asked.memory_limit is None else (asked.memory, asked.memory_limit)
            ),
            "cloud": spec.cloud,
            "region": list(spec.regions) or None,
        }

    def _once(self, look_up: Callable[..., Any], name: str) -> Any:
        """Return the same object for the same name: the SDK looks each object up once."""
        key = f"{look_up.__qualname__} {name}"
        if key not in self._named:
            self._named[key] = look_up(
                name, environment_name=self._environment, client=self._client
            )
        return self._named[key]
