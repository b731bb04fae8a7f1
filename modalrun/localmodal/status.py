"""Summarize a sandbox for `modalrun local status`, without secret values."""

from __future__ import annotations

from typing import Any

from modalrun.localmodal.storage.store import SandboxRecord


def sandbox_summary(record: SandboxRecord) -> dict[str, Any]:
    """Return a sandbox's summary. Requested resources are not enforced."""
    gpu = f"{record.gpu}:{record.gpu_count}" if record.gpu_count > 1 else record.gpu
    return {
        "id": record.id,
        "task_id": record.task_id,
        "name": record.name or None,
        "app_id": record.app_id,
        "app": record.app_name,
        "environment": record.environment,
        "tags": record.tags,
        "created_at": record.created_at,
        "started_at": record.started_at or None,
        "timeout_seconds": record.timeout_secs,
        "requested": {
            "cpu": record.milli_cpu / 1000 or None,
            "cpu_limit": record.milli_cpu_max / 1000 or None,
            "memory_mib": record.memory_mb or None,
            "memory_limit_mib": record.memory_mb_max or None,
            "gpu": gpu or None,
            "cloud": record.cloud or None,
            "regions": record.regions,
        },
    }
