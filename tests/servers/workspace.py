"""What one user of a ZenML server has: a project, a stack with its artifacts in S3, an API key."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

from servers.s3 import Access
from servers.zenml_server import Api


@dataclass(frozen=True)
class Workspace:
    """A project, a stack and a service account, used by one test only."""

    url: str
    name: str
    project: str
    stack: str
    account: str
    key: str
    key_id: str
    prefix: str
    """What the names of its objects in the bucket begin with."""

    def environment(self) -> dict[str, str]:
        """What a user exports to work there."""
        return {
            "ZENML_STORE_URL": self.url,
            "ZENML_STORE_API_KEY": self.key,
            "ZENML_ACTIVE_PROJECT_ID": self.project,
            "ZENML_ACTIVE_STACK_ID": self.stack,
        }


def secret_of(key: str) -> str:
    """The secret part of an API key, which is JSON in base64 after a prefix."""
    return str(json.loads(base64.b64decode(key.removeprefix("ZENKEY_")))["key"])


def make(api: Api, s3: Access, name: str) -> Workspace:
    """Register a project, an artifact store, a stack and a service account, all called `name`."""
    project = api.post("/projects", {"name": name})
    store = api.post(
        "/components",
        {
            "name": name,
            "type": "artifact_store",
            "flavor": "s3",
            "configuration": {
                "path": f"s3://{s3.bucket}/{name}",
                "key": s3.key,
                "secret": s3.secret,
                "client_kwargs": {"endpoint_url": s3.endpoint},
            },
        },
    )
    (orchestrator,) = api.items("/components", type="orchestrator", name="default")
    components = {"orchestrator": [orchestrator["id"]], "artifact_store": [store["id"]]}
    stack = api.post("/stacks", {"name": name, "components": components})
    account = api.post("/service_accounts", {"name": name, "active": True})
    key = api.post(f"/service_accounts/{account['id']}/api_keys", {"name": name})
    return Workspace(
        url=api.url,
        name=name,
        project=project["id"],
        stack=stack["id"],
        account=account["id"],
        key=key["body"]["key"],
        key_id=key["id"],
        prefix=f"{name}/",
    )


def clear(api: Api, place: Workspace) -> None:
    """Remove what the service account has registered: others may use the same names."""
    for kind in ("stacks", "components", "service_connectors", "secrets", "flavors"):
        for item in api.items(f"/{kind}", user=place.account):
            api.delete(f"/{kind}/{item['id']}")


def login(url: str, key: str) -> str:
    """A token for an API key, as ZenML's client gets one."""
    form = {"grant_type": "zenml-api-key", "password": key}
    body = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(f"{url}/api/v1/login", body, timeout=60) as answer:
        return str(json.load(answer)["access_token"])


def accepts(url: str, token: str) -> bool:
    """Whether the server accepts a token."""
    request = urllib.request.Request(
        f"{url}/api/v1/current-user", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        return False
