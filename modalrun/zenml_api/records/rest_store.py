"""Read and write records by requests to ZenML's server. Does not import ZenML.

What only ZenML's own client can do, or word, is left to it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from modalrun.errors import ServerError
from modalrun.zenml_api.errors import NotAllowedError
from modalrun.zenml_api.records import stores
from modalrun.zenml_api.records.responses import (
    Json,
    Link,
    Page,
    StoredDeployment,
    StoredRun,
    StoredStep,
    stored_deployment,
    stored_run,
    stored_step,
)
from modalrun.zenml_api.records.stores import Store
from modalrun.zenml_api.rest.session import MissingError, RefusedError, Session
from modalrun.zenml_api.rest.settings import Unusual

if TYPE_CHECKING:
    from modalrun.zenml_api.component import OrchestratorComponent

M = TypeVar("M", bound=Callable[..., Any])

_LONGEST_VALUE = 65_535
"""Characters of a value that ZenML stores; a longer one it leaves out."""

_TYPES: dict[type, str] = {
    **{kind: kind.__name__ for kind in (bool, str, int, float, dict, list)},
    Link: "Uri",
}


def _or_by_zenml(method: M) -> M:
    """Let ZenML's own client do what the requests can't, and all that follows."""

    @functools.wraps(method)
    def call(self: RestStore, *args: Any, **kwargs: Any) -> Any:
        if self._zenml is None:
            try:
                return method(self, *args, **kwargs)
            except MissingError:
                raise
            except ServerError as error:
                # As ZenML's client: `queries` then reads without metadata.
                raise error.__cause__ or error from None
            except RefusedError as error:
                if error.status == HTTPStatus.FORBIDDEN and method.__name__.startswith("update"):
                    raise NotAllowedError(str(error)) from error
            except (Unusual, LookupError, TypeError, ValueError, AttributeError):
                # Unusual, or an answer of an unknown shape.
                pass
            stores.open_zenml()
            stores.use(None)
            self._zenml = stores.current()
        return getattr(self._zenml, method.__name__)(*args, **kwargs)

    return cast(M, call)


class RestStore:
    """The store of a server; see `stores.Store`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._zenml: Store | None = None
        """ZenML's own client, once it was needed."""

    @_or_by_zenml
    def run(self, run_id: str, *, hydrate: bool = True) -> StoredRun:
        return self._run(self._session.get(f"/runs/{run_id}", hydrate=hydrate))

    @_or_by_zenml
    def runs(self, *, hydrate: bool, **filters: Any) -> Page[StoredRun]:
        page = self._page("/runs", "desc:created", hydrate, filters)
        return Page([self._run(run) for run in page["items"]], page["total_pages"])

    @_or_by_zenml
    def step(self, step_run_id: str, *, hydrate: bool = True) -> StoredStep:
        return stored_step(self._session.get(f"/steps/{step_run_id}", hydrate=hydrate))

    @_or_by_zenml
    def steps(self, *, hydrate: bool, **filters: Any) -> Page[StoredStep]:
        page = self._page("/steps", "created", hydrate, filters)
        return Page([stored_step(step) for step in page["items"]], page["total_pages"])

    @_or_by_zenml
    def deployment(self, deployment_id: str, only: list[str]) -> StoredDeployment:
        path = f"/pipeline_snapshots/{deployment_id}"
        return stored_deployment(
            self._session.get(path, hydrate=True, step_configuration_filter=only)
        )

    @_or_by_zenml
    def orchestrator(self, stack_id: str) -> OrchestratorComponent:
        from modalrun.zenml_api.component import OrchestratorComponent

        stack = self._session.get(f"/stacks/{stack_id}", hydrate=True)
        component = stack["metadata"]["components"]["orchestrator"][0]["id"]
        found = self._session.get(f"/components/{component}", hydrate=True)
        configuration = found["metadata"]["configuration"]
        return OrchestratorComponent(found["name"], found["body"]["flavor_name"], configuration)

    @_or_by_zenml
    def active_user(self) -> str:
        return str(self._session.get("/current-user")["id"])

    @_or_by_zenml
    def update_run(self, run_id: str, **changes: Any) -> StoredRun:
        return self._run(self._session.put(f"/runs/{run_id}", changes))

    @_or_by_zenml
    def update_step(self, step_run_id: str, **changes: Any) -> StoredStep:
        return stored_step(self._session.put(f"/steps/{step_run_id}", changes))

    @_or_by_zenml
    def add_metadata(
        self, kind: Literal["pipeline_run", "step_run"], owner: str, values: Mapping[str, Any]
    ) -> None:
        if any(len(json.dumps(value)) > _LONGEST_VALUE for value in values.values()):
            raise Unusual("ZenML's client leaves out what is too long, and warns")
        self._session.post(
            "/run-metadata",
            {
                "project": self._session.project["id"],
                "resources": [{"id": owner, "type": kind}],
                "values": dict(values),
                "types": {key: _TYPES[type(value)] for key, value in values.items()},
            },
        )

    def _page(self, path: str, order: str, hydrate: bool, filters: Json) -> Json:
        project = filters.get("project") or self._session.project["id"]
        query = {"sort_by": order, "page": 1, "size": 20, **filters, "project": project}
        try:
            page: Json = self._session.get(path, hydrate=hydrate, **query)
        except MissingError as error:
            raise Unusual(f"a list is not found: {error}") from error
        return page

    def _run(self, run: Json) -> StoredRun:
        return stored_run(run, self._session.run_page(run["id"], run["body"]["project_id"]))
