"""Secrets. Named ones persist (in the database, mode 0600); all others live in memory alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from modal_proto import api_pb2

from modalrun.localmodal.server.rpc import Call, RpcError, not_found, rpc
from modalrun.localmodal.services.environments import Environments
from modalrun.localmodal.storage.ids import Clock, new_id
from modalrun.localmodal.storage.store import Store, Stored

_ANONYMOUS_LIMIT = 10_000


class Secrets:
    """The RPCs about secrets, and the values for whoever starts a sandbox."""

    def __init__(self, store: Store, clock: Clock, environments: Environments) -> None:
        self._store = store
        self._clock = clock
        self._environments = environments
        self._anonymous: OrderedDict[str, dict[str, str]] = OrderedDict()

    def values(self, secret_ids: Iterable[str]) -> dict[str, str]:
        """The variables of some secrets, the last one wins. Raises RpcError (NOT_FOUND)."""
        variables: dict[str, str] = {}
        for secret_id in secret_ids:
            if secret_id in self._anonymous:
                variables.update(self._anonymous[secret_id])
                continue
            secret = self._get(secret_id)
            variables.update(secret.document["values"])
            secret.document["last_used_at"] = self._clock.now()
            self._store.put(secret)
        return variables

    def _get(self, secret_id: str) -> Stored:
        secret = self._store.get("secret", secret_id)
        if secret is None:
            raise not_found("Secret", secret_id)
        return secret

    def _metadata(self, secret: Stored) -> api_pb2.SecretMetadata:
        return api_pb2.SecretMetadata(
            name=secret.name,
            keys=sorted(secret.document["values"]),
            environment_name=secret.environment,
            creation_info=api_pb2.CreationInfo(created_at=secret.created_at, created_by="local"),
            last_used_at=secret.document.get("last_used_at", 0.0),
        )

    @rpc("SecretGetOrCreate", create=True)
    async def get_or_create(
        self, request: api_pb2.SecretGetOrCreateRequest, call: Call
    ) -> api_pb2.SecretGetOrCreateResponse:
        kind = request.object_creation_type
        values = dict(request.env_dict)
        if not request.deployment_name:
            secret_id = new_id("st")
            self._anonymous[secret_id] = values
            if len(self._anonymous) > _ANONYMOUS_LIMIT:
                self._anonymous.popitem(last=False)
            return api_pb2.SecretGetOrCreateResponse(
                secret_id=secret_id, metadata=api_pb2.SecretMetadata(keys=sorted(values))
            )
        environment = self._environments.resolve(request.environment_name)
        found = self._store.named("secret", environment, request.deployment_name)
        if found and kind == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise RpcError(
                Status.ALREADY_EXISTS, f"Secret '{request.deployment_name}' already exists"
            )
        if found and kind != api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS:
            secret = found[0]
        elif not found and kind == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
            raise not_found("Secret", request.deployment_name)
        else:
            secret = (
                found[0]
                if found
                else Stored(
                    "secret",
                    new_id("st"),
                    self._clock.now(),
                    environment=environment,
                    name=request.deployment_name,
                )
            )
            secret.document["values"] = values
            self._store.put(secret)
        missing = [key for key in request.required_keys if key not in secret.document["values"]]
        if missing:
            raise not_found(f"Key of secret '{secret.name}'", ", ".join(missing))
        return api_pb2.SecretGetOrCreateResponse(
            secret_id=secret.id, metadata=self._metadata(secret)
        )

    @rpc("SecretGetInfo")
    async def get_info(
        self, request: api_pb2.SecretGetInfoRequest, call: Call
    ) -> api_pb2.SecretGetInfoResponse:
        return api_pb2.SecretGetInfoResponse(metadata=self._metadata(self._get(request.secret_id)))

    @rpc("SecretList")
    async def list(
        self, request: api_pb2.SecretListRequest, call: Call
    ) -> api_pb2.SecretListResponse:
        environment = self._environments.resolve(request.environment_name)
        before = request.pagination.created_before or float("inf")
        limit = request.pagination.max_objects or None
        secrets = [s for s in self._store.all("secret", environment) if s.created_at < before]
        items = [
            api_pb2.SecretListItem(
                label=secret.name,
                created_at=secret.created_at,
                last_used_at=secret.document.get("last_used_at", 0.0),
                environment_name=environment,
                secret_id=secret.id,
                metadata=self._metadata(secret),
            )
            for secret in secrets[:limit]
        ]
        return api_pb2.SecretListResponse(items=items, environment_name=environment)

    @rpc("SecretUpdate")
    async def update(self, request: api_pb2.SecretUpdateRequest, call: Call) -> Empty:
        secret = self._get(request.secret_id)
        for change in request.updates:
            if change.HasField("value"):
                secret.document["values"][change.key] = change.value
            else:
                secret.document["values"].pop(change.key, None)
        self._store.put(secret)
        return Empty()

    @rpc("SecretDelete")
    async def delete(self, request: api_pb2.SecretDeleteRequest, call: Call) -> Empty:
        self._store.delete("secret", self._get(request.secret_id).id)
        return Empty()
