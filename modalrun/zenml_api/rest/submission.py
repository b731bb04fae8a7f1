"""Submit a run by requests to ZenML's server: the records that ZenML's own client would leave.

Read from ZenML 0.98.0 (`pipelines/run_utils.py`, `orchestrators/utils.py`, `client.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

from modalrun.errors import ServerError
from modalrun.plan.conditions import ServerState
from modalrun.run.contract import ORCHESTRATOR_RUN_ID
from modalrun.run.records import CreatedRun, Placeholder
from modalrun.zenml_api import config_files
from modalrun.zenml_api.rest.session import RefusedError, Session
from modalrun.zenml_api.rest.settings import Unusual

REFUSALS = (Unusual, KeyError, RefusedError)
"""What `Server` raises where nothing was created: ZenML's own client tells why, or can do it."""

_NEEDS_CLIENT = ("ZENML_PREVENT_CLIENT_SIDE_CACHING", "ZENML_PIPELINE_RUN_API_TOKEN_EXPIRATION")
"""Variables that change what ZenML's client does when it submits."""

_FIELDS = ("user_id", "user_email", "user_email_opt_in", "analytics_opt_in", "container_engine")
"""Fields of ZenML's configuration that a sandbox gets as variables (`global_config.py:445`)."""


class Server:
    """A ZenML server to which one run is submitted.

    Each method raises one of `REFUSALS`, or as `errors.translated` says.

    Attributes:
        stack: The stack of the run, as the server has it.
        project: The active project.
    """

    def __init__(self, session: Session, stack_id: str) -> None:
        """Read the stack.

        Args:
            stack_id: The stack that the deployment was compiled for.
        """
        if any(os.environ.get(name) for name in _NEEDS_CLIENT):
            raise Unusual("a variable of the environment changes how ZenML submits")
        self.session = session
        self.project = session.project
        self.stack: dict[str, Any] = session.get(f"/stacks/{stack_id}")

    @property
    def state(self) -> ServerState:
        """The version, login, project and stack of the server, as they are now."""
        info = self.session.info
        changed = {self.stack["id"]: self.stack["body"]["updated"]}
        for components in self.stack["metadata"]["components"].values():
            changed |= {one["id"]: one["body"]["updated"] for one in components}
        return ServerState(
            version=info["version"],
            login=info["auth_scheme"],
            kind=info["deployment_type"],
            project=self.project["id"],
            stack=changed,
        )

    @property
    def orchestrator(self) -> dict[str, Any]:
        """The orchestrator of the stack."""
        return dict(self.stack["metadata"]["components"]["orchestrator"][0])

    def snapshot(self, snapshot_id: str) -> dict[str, Any]:
        """Return a stored snapshot, with the fields of ZenML's `PipelineSnapshotBase`."""
        found = self.session.get(f"/pipeline_snapshots/{snapshot_id}")
        stack = (found.get("resources") or {}).get("stack") or {}
        if stack.get("id") != self.stack["id"]:
            raise Unusual("the snapshot's stack is gone")
        return {**found["body"], **found["metadata"]}

    def require_snapshot(self, name_or_id: str, snapshot_id: str) -> None:
        """Check that a run spec's `deployment` is still the snapshot that it was."""
        if name_or_id == snapshot_id:
            self.session.get(f"/pipeline_snapshots/{snapshot_id}", hydrate=False)
            return
        page = self.session.get(
            "/pipeline_snapshots",
            project=self.project["id"],
            name=f"equals:{name_or_id}",
            named_only=True,
        )
        if [one["id"] for one in page["items"]] != [snapshot_id]:
            raise Unusual(f"'{name_or_id}' is another snapshot now")

    def require_uncached(self, cache_keys: Iterable[str]) -> None:
        """Check that ZenML's cache has none of some steps, which would be recorded as cached."""

        def is_cached(key: str) -> bool:
            # As `cache_utils.get_cached_step_run`.
            page = self.session.get(
                "/steps",
                project=self.project["id"],
                cache_key=key,
                cache_expired=False,
                status="completed",
                size=1,
            )
            return bool(page["total"])

        with ThreadPoolExecutor(4) as pool:
            if any(pool.map(is_cached, cache_keys)):
                raise Unusual("ZenML's cache has a step")

    def store(self, snapshot: Mapping[str, Any], pipeline: str, source_code: str | None) -> str:
        """Store a snapshot of a pipeline, and return its id."""
        project = self.project["id"]
        page = self.session.get("/pipelines", project=project, name=f"equals:{pipeline}", size=1)
        if not page["total"]:
            raise Unusual("ZenML has no such pipeline yet")
        request = {
            **snapshot,
            "project": project,
            "stack": self.stack["id"],
            "pipeline": page["items"][0]["id"],
            "source_code": source_code,
        }
        return str(self.session.post("/pipeline_snapshots", request)["id"])

    def create_run(
        self,
        snapshot_id: str,
        snapshot: Mapping[str, Any],
        placeholder: Placeholder,
        *,
        local_artifacts: bool,
    ) -> CreatedRun:
        """Create the placeholder run of a stored snapshot; as `records.runs.create_run`.

        Args:
            placeholder: Gets the run's id at once: what follows may fail.
            local_artifacts: Whether the artifact store is on this machine.

        Raises:
            ServerError: The run was created, but not what its sandbox needs.
        """
        configuration = snapshot["pipeline_configuration"]
        start = datetime.now(timezone.utc).replace(tzinfo=None)
        names = {
            "date": start.strftime("%Y_%m_%d"),
            "time": start.strftime("%H_%M_%S_%f"),
            **(configuration.get("substitutions") or {}),
        }
        orchestrator_run_id = str(uuid4())
        run, _ = self.session.post(
            "/runs",
            {
                "name": snapshot["run_name_template"].format(**names),
                "start_time": start.isoformat(),
                "orchestrator_run_id": orchestrator_run_id,
                "project": self.project["id"],
                "snapshot": snapshot_id,
                "status": "initializing",
                "tags": configuration.get("tags"),
            },
        )
        placeholder.run_id = run["id"]
        try:
            asked = {"token_type": "workload", "pipeline_run_id": run["id"]}
            token = self.session.get("/api_token", **asked)
            url = self.session.run_page(run["id"], self.project["id"])
        except REFUSALS as error:
            # Not one of them: ZenML's own client would create a second run.
            raise ServerError(
                f"ZenML's server has the run {run['id']}, and gives no token for it: {error}"
            ) from error
        variables = {
            **self._variables(),
            "ZENML_STORE_API_TOKEN": token,
            ORCHESTRATOR_RUN_ID: orchestrator_run_id,
        }
        if local_artifacts:
            variables[config_files.LOCAL_STORES_PATH] = config_files.local_stores()
        return CreatedRun(run["id"], run["name"], url, variables, snapshot_id=snapshot_id)

    def _variables(self) -> dict[str, str]:
        """Return ZenML's variables for a sandbox, but for the token."""
        stored = {"user_id": str(uuid4()), **config_files.configuration()}
        names = {f"ZENML_{field.upper()}": field for field in _FIELDS}
        found = {name: os.environ.get(name, stored.get(field)) for name, field in names.items()}
        analytics = str(found["ZENML_ANALYTICS_OPT_IN"]).lower() not in {"false", "0", "no", "off"}
        settings = self.session.settings
        return {
            **{name: str(value) for name, value in found.items() if value is not None},
            "ZENML_ANALYTICS_OPT_IN": str(analytics),
            "ZENML_VERSION": self.session.info["version"],
            "ZENML_STORE_TYPE": "rest",
            "ZENML_STORE_URL": settings.url,
            "ZENML_STORE_VERIFY_SSL": str(settings.verify),
            "ZENML_STORE_HTTP_TIMEOUT": str(int(settings.timeout)),
            "ZENML_STORE_CONNECTION_POOL_SIZE": "10",
            "ZENML_ACTIVE_STACK_ID": self.stack["id"],
            "ZENML_ACTIVE_PROJECT_ID": self.project["id"],
            config_files.DISABLE_CREDENTIALS: "true",
        }
