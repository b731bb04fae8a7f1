"""Serve the RPCs about secrets. Named ones persist, the others stay in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal.server.rpc import not_found, rpc
from modalrun.localmodal.services.rules import check_name, check_variables
from modalrun.localmodal.services.service import Service
from modalrun.localmodal.storage.ids import new_id
from modalrun.localmodal.storage.store import Store, Stored

_ANONYMOUS_LIMIT = 10_000


class Secrets(Service):
    """The RPCs about secrets, and the values that sandboxes start with."""

    kind = "secret"
    prefix = "st"

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._anonymous: OrderedDict[str, dict[str, str]] = OrderedDict()

    def values(
        self, secret_ids: Iterable[str], sources: Iterable[api.SecretSource] = ()
    ) -> dict[str, str]:
        """Return the variables of secrets; the last one wins. Raises GRPCError."""
        variables: dict[str, str] = {}
        for secret_id in secret_ids:
            if secret_id in self._anonymous:
                variables.update(self._anonymous[secret_id])
                continue
            secret = self.get(secret_id)
            variables.update(secret.document["values"])
            secret.document["last_used_at"] = self._clock.now()
            self._store.put(secret)
        for source in sources:
            if source.WhichOneof("source") == "secret_id":
                variables.update(self.values([source.secret_id]))
            else:
                check_variables(source.env.contents)
                variables.update(source.env.contents)
        return variables

    def _metadata(self, secret: Stored) -> api.SecretMetadata:
        return api.SecretMetadata(
            name=secret.name,
            keys=sorted(secret.document["values"]),
            environment_name=secret.environment,
            creation_info=api.CreationInfo(created_at=secret.created_at, created_by="local"),
            last_used_at=secret.document.get("last_used_at", 0.0),
        )

    @rpc("SecretGetOrCreate", create=True)
    async def get_or_create(
        self, request: api.SecretGetOrCreateRequest
    ) -> api.SecretGetOrCreateResponse:
        creation = request.object_creation_type
        values = dict(request.env_dict)
        check_variables(values)
        if not request.deployment_name:
            secret_id = new_id("st")
            self._anonymous[secret_id] = values
            if len(self._anonymous) > _ANONYMOUS_LIMIT:
                self._anonymous.popitem(last=False)
            return api.SecretGetOrCreateResponse(
                secret_id=secret_id, metadata=api.SecretMetadata(keys=sorted(values))
            )
        environment = self.resolve(request.environment_name)
        found = self.named(environment, request.deployment_name)
        if found and creation == api.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise GRPCError(
                Status.ALREADY_EXISTS, f"Secret '{request.deployment_name}' already exists"
            )
        if found and creation != api.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS:
            secret = found[0]
        elif not found and creation == api.OBJECT_CREATION_TYPE_UNSPECIFIED:
            raise not_found("Secret", request.deployment_name)
        else:
            check_name("Secret", request.deployment_name)
            secret = found[0] if found else self.add(environment, request.deployment_name)
            secret.document["values"] = values
            self._store.put(secret)
        missing = [key for key in request.required_keys if key not in secret.document["values"]]
        if missing:
            raise not_found(f"Key of secret '{secret.name}'", ", ".join(missing))
        return api.SecretGetOrCreateResponse(secret_id=secret.id, metadata=self._metadata(secret))

    @rpc("SecretGetInfo")
    async def get_info(self, request: api.SecretGetInfoRequest) -> api.SecretGetInfoResponse:
        return api.SecretGetInfoResponse(metadata=self._metadata(self.get(request.secret_id)))

    @rpc("SecretList")
    async def list(self, request: api.SecretListRequest) -> api.SecretListResponse:
        environment = self.resolve(request.environment_name)
        items = [
            api.SecretListItem(
                label=secret.name,
                created_at=secret.created_at,
                last_used_at=secret.document.get("last_used_at", 0.0),
                environment_name=environment,
                secret_id=secret.id,
                metadata=self._metadata(secret),
            )
            for secret in self.page(request)
        ]
        return api.SecretListResponse(items=items, environment_name=environment)

    @rpc("SecretUpdate")
    async def update(self, request: api.SecretUpdateRequest) -> Empty:
        secret = self.get(request.secret_id)
        for change in request.updates:
            if change.HasField("value"):
                check_variables([change.key])
                secret.document["values"][change.key] = change.value
            else:
                secret.document["values"].pop(change.key, None)
        self._store.put(secret)
        return Empty()

    @rpc("SecretDelete")
    async def delete(self, request: api.SecretDeleteRequest) -> Empty:
        self.drop(request.secret_id)
        return Empty()
