"""Know which fields of a request the server keeps: it refuses or warns of every other one by name.

A field is written with a mark: none: it is kept; `-`: it changes nothing for a client here; `?`: a
warning names it; `!`: the call is refused. A field that is not in the table is newer than this
server: a warning names it. `tests/unit/test_request_fields.py` wants every field of the installed
SDK in the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from grpclib.const import Status
from grpclib.exceptions import GRPCError

FIELDS = {
    "AppClientDisconnectRequest": "app_id -reason -exception",
    "AppCountLogsRequest": "app_id task_id !function_id !function_call_id sandbox_id search_text"
    " since until bucket_secs source !parametrized_function_id",
    "AppCreateRequest": "-client_id description environment_name app_state tags",
    "AppFetchLogsRequest": "app_id since until limit source !function_id !function_call_id task_id"
    " sandbox_id search_text !parametrized_function_id",
    "AppGetByDeploymentNameRequest": "name environment_name",
    "AppGetInfoRequest": "app_id",
    "AppGetLayoutRequest": "app_id",
    "AppGetLifecycleRequest": "app_id",
    "AppGetLogsRequest": "app_id timeout last_entry_id !function_id !parametrized_function_id"
    " !input_id task_id !function_call_id file_descriptor sandbox_id search_text",
    "AppGetOrCreateRequest": "app_name environment_name object_creation_type",
    "AppGetTagsRequest": "app_id",
    "AppHeartbeatRequest": "app_id",
    "AppListRequest": "environment_name",
    "AppLookupRequest": "app_name environment_name",
    # An app is deployed or not from its creation on.
    "AppPublishRequest": "app_id -name ?deployment_tag -app_state !function_ids !class_ids"
    " -definition_ids !rollback_version -client_version -commit_info tags !staged -deployment_type",
    "AppSetTagsRequest": "app_id tags",
    "AppStopRequest": "app_id -source",
    "AuthTokenGetRequest": "",
    "BlobCreateRequest": "-content_md5 -content_sha256_base64 content_length",
    "ContainerStopRequest": "task_id ?graceful",
    "DictClearRequest": "dict_id",
    "DictContainsRequest": "dict_id key",
    "DictContentsRequest": "dict_id keys values",
    "DictDeleteRequest": "dict_id",
    "DictEntry": "key value",
    "DictGetByIdRequest": "dict_id",
    "DictGetOrCreateRequest": "deployment_name environment_name object_creation_type data",
    "DictGetRequest": "dict_id key",
    "DictHeartbeatRequest": "dict_id",
    "DictLenRequest": "dict_id",
    "DictListRequest": "environment_name pagination",
    "DictPopRequest": "dict_id key",
    "DictUpdateRequest": "dict_id updates if_not_exists",
    "EnvironmentCreateRequest": "name ?is_managed ?settings ?environment_type ?default_member_role"
    " ?default_member_role_str",
    "EnvironmentDeleteRequest": "name",
    "EnvironmentGetOrCreateRequest": "deployment_name object_creation_type",
    "EnvironmentUpdateRequest": "current_name !name !web_suffix !max_concurrent_tasks"
    " !max_concurrent_gpus !block_unauthenticated_resources image_builder_version",
    "ImageBuildChainGetRequest": "image_id",
    "ImageFromIdRequest": "image_id",
    "ImageGetByTagRequest": "tag environment_name",
    # Nothing is built, so what only a build needs changes nothing.
    "ImageGetOrCreateRequest": "image app_id -existing_image_id !build_function_id -force_build"
    " -namespace builder_version -allow_global_deployment -ignore_cache",
    "Image": "base_images dockerfile_commands context_files -version -secret_ids context_mount_id"
    " -gpu_config -image_registry_config !build_function_def !build_function_globals -runtime"
    " -runtime_debug !build_function build_args -volume_mounts ?arch",
    "BaseImage": "image_id -docker_tag",
    "ImageContextFile": "filename data",
    "ImageJoinStreamingRequest": "image_id -timeout -last_entry_id -include_logs_for_finished",
    "ImagePublishRequest": "image_id tag environment_name ?allow_public",
    "MountBatchedCheckExistenceRequest": "sha256_hex_hashes",
    "MountGetOrCreateRequest": "deployment_name -namespace environment_name object_creation_type"
    " files -app_id -earliest_checked_at",
    "MountFile": "filename sha256_hex -size mode",
    "MountPutFileRequest": "sha256_hex data data_blob_id",
    "QueueClearRequest": "queue_id partition_key all_partitions",
    "QueueDeleteRequest": "queue_id",
    "QueueGetByIdRequest": "queue_id",
    "QueueGetOrCreateRequest": "deployment_name environment_name object_creation_type",
    "QueueGetRequest": "queue_id timeout n_values partition_key",
    "QueueHeartbeatRequest": "queue_id",
    "QueueLenRequest": "queue_id partition_key total",
    "QueueListRequest": "environment_name total_size_limit pagination",
    "QueueNextItemsRequest": "queue_id partition_key last_entry_id item_poll_timeout",
    "QueuePutRequest": "queue_id values partition_key partition_ttl_seconds",
    "SandboxCreateRequest": "app_id definition -environment_name tags",
    "SandboxCreateV2Request": "app_id definition ephemeral_secrets tags"
    " !cloud_bucket_mount_credentials secret_sources",
    "Sandbox": "entrypoint_args mount_ids image_id secret_ids resources ?cloud_provider"
    " timeout_secs workdir !nfs_mounts ?runtime_debug block_network !s3_mounts"
    " !cloud_bucket_mounts volume_mounts pty_info scheduler_placement ?worker_id open_ports"
    " !i6pn_enabled network_access !proxy_id !enable_snapshot !snapshot_version cloud_provider_str"
    " ?runsc_runtime_version ?runtime ?verbose name ?experimental_options"
    " ?experimental_options_v2 ?preload_path_prefixes idle_timeout_secs"
    " -direct_sandbox_commands_enabled !_restore_instance_type !custom_domain"
    " !include_oidc_identity_token readiness_probe ?inbound_cidr_allowlist environment_variables"
    " !experimental_outbound_policy !include_x509_svid !outbound_policy",
    "Resources": "memory_mb milli_cpu gpu_config ?memory_mb_max ?ephemeral_disk_mb ?milli_cpu_max"
    " ?rdma -skip_num_threads_env_vars",
    "GPUConfig": "-type count gpu_type",
    "SchedulerPlacement": "regions ?_zone ?_lifecycle ?_instance_types -nonpreemptible",
    "VolumeMount": "volume_id mount_path -allow_background_commits read_only sub_path",
    "PTYInfo": "-enabled winsz_rows winsz_cols env_term env_colorterm -env_term_program -pty_type"
    " -no_terminate_on_idle_stdin",
    "PortSpecs": "ports",
    "PortSpec": "port unencrypted tunnel_type",
    "NetworkAccess": "network_access_type !allowed_cidrs !allowed_domains",
    "Probe": "tcp_port exec_command interval_ms",
    "Probe.ExecCommand": "argv",
    "SandboxTag": "tag_name tag_value",
    "SecretSource": "secret_id env",
    "StringMap": "contents",
    "SandboxGetCommandRouterAccessRequest": "sandbox_id task_id",
    "SandboxGetFromNameRequest": "sandbox_name environment_name app_name include_terminated",
    "SandboxGetLogsRequest": "sandbox_id file_descriptor timeout last_entry_id",
    "SandboxGetTaskIdRequest": "sandbox_id -timeout -wait_until_ready",
    "SandboxGetTunnelsRequest": "sandbox_id timeout",
    "SandboxWaitUntilReadyRequest": "sandbox_id timeout",
    "SandboxWaitUntilReadyTcrRequest": "task_id timeout",
    "SandboxListRequest": "app_id before_timestamp environment_name include_finished tags",
    "SandboxStdinWriteRequest": "sandbox_id input index eof",
    "SandboxStdinWriteV2Request": "task_id offset data eof",
    "SandboxStdioReadV2Request": "task_id offset file_descriptor",
    "SandboxTagsGetRequest": "sandbox_id",
    "SandboxTagsSetRequest": "-environment_name sandbox_id tags",
    "SandboxTerminateRequest": "sandbox_id",
    "SandboxWaitRequest": "sandbox_id timeout",
    "SecretDeleteRequest": "secret_id",
    "SecretGetInfoRequest": "secret_id",
    "SecretGetOrCreateRequest": "deployment_name environment_name object_creation_type env_dict"
    " -app_id required_keys",
    "SecretListRequest": "environment_name pagination",
    "ListPagination": "max_objects created_before",
    "SecretUpdateRequest": "secret_id updates",
    "SecretUpdateRequest.Update": "key value",
    "TaskExecPollRequest": "task_id exec_id",
    "TaskExecStartRequest": "task_id exec_id command_args stdout_config stderr_config timeout_secs"
    " workdir secret_ids pty_info -runtime_debug container_id env secret_sources",
    "TaskExecStdinStatusRequest": "task_id exec_id",
    "TaskExecStdinWriteRequest": "task_id exec_id offset data eof",
    "TaskExecStdinWriteStreamRequest": "start data end",
    "TaskExecStdinWriteStreamStart": "task_id exec_id offset",
    "TaskExecStdinWriteStreamEnd": "",
    "TaskExecStdioReadRequest": "task_id exec_id offset file_descriptor",
    "TaskExecWaitRequest": "task_id exec_id",
    "TaskGetCommandRouterAccessRequest": "task_id",
    "TaskGetInfoRequest": "task_id",
    "TaskReloadVolumesRequest": "task_id !container_id",
    "TaskListRequest": "environment_name app_id",
    "TokenInfoGetRequest": "",
    "VolumeCommitRequest": "volume_id !container_id",
    "VolumeDeleteRequest": "volume_id -environment_name",
    "VolumeGetOrCreateRequest": "deployment_name environment_name object_creation_type -app_id"
    " version ?create_options",
    "VolumeHeartbeatRequest": "volume_id",
    "VolumeCopyFilesRequest": "volume_id src_paths dst_path recursive",
    "VolumeCopyFiles2Request": "volume_id src_paths dst_path recursive",
    "VolumeGetByIdRequest": "volume_id",
    "VolumeGetFile2Request": "volume_id path start len -client_pads_blocks",
    "VolumeListRequest": "environment_name pagination",
    "VolumeListFilesRequest": "volume_id path recursive max_entries",
    "VolumeListFiles2Request": "volume_id path recursive max_entries",
    "VolumePutFilesRequest": "volume_id files disallow_overwrite_existing_files"
    " -earliest_checked_at",
    "VolumePutFiles2Request": "volume_id files disallow_overwrite_existing_files",
    "VolumePutFiles2Request.File": "path size blocks mode",
    "VolumePutFiles2Request.Block": "contents_sha256 put_response",
    "VolumeReloadRequest": "volume_id",
    "VolumeRemoveFileRequest": "volume_id path recursive",
    "VolumeRemoveFile2Request": "volume_id path recursive",
    "VolumeRenameRequest": "volume_id name",
}


def name_of(message: Descriptor) -> str:
    """Return the name of a message's row in the table."""
    return message.full_name.removeprefix(f"{message.file.package}.")


@cache
def marks(message: Descriptor) -> dict[str, str] | None:
    """Return the mark of each field ("" for a kept one); None if there is no such row."""
    row = FIELDS.get(name_of(message))
    return row if row is None else {w.lstrip("-?!"): w[: w[0] in "-?!"] for w in row.split()}


@cache
def _may_lose(message: Descriptor | None) -> bool:
    """Return whether a message has a field that is not kept, or is kept only in parts."""
    known = marks(message) if message is not None else None
    if message is None or known is None:
        return False
    return any(
        _may_lose(field.message_type) if mark == "" else mark in {"?", "!"}
        for field in message.fields
        for mark in [known.get(field.name, "?")]
    )


def _not_kept(message: Message, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the mark and path of each field that is set and not kept."""
    known = marks(message.DESCRIPTOR) or {}
    for field, value in message.ListFields():
        mark, path = known.get(field.name, "?"), prefix + field.name
        if not mark and _may_lose(field.message_type):
            for one in value if field.is_repeated else (value,):
                yield from _not_kept(one, f"{path}.")
        elif mark in {"?", "!"} and (not isinstance(value, Message) or value.ByteSize()):
            yield mark, path
    # A newer SDK's, of which this one has not even the name.
    unknown: Any = UnknownFieldSet(message)
    for one in unknown:
        yield "?", f"{prefix}field {one.field_number}"


def check(rpc: str, request: Message) -> list[str]:
    """Return warnings about fields that are accepted and not kept. Raises GRPCError."""
    warnings: list[str] = []
    if marks(request.DESCRIPTOR) is None:
        return warnings
    for mark, path in _not_kept(request):
        if mark == "!":
            text = f"The local Modal server does not have '{path}' of {rpc}"
            raise GRPCError(Status.UNIMPLEMENTED, text)
        warnings.append(f"The local Modal server ignores '{path}' of {rpc}")
    return warnings
