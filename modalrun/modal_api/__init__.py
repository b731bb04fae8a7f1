"""The one package that imports `modal`. Written against the Modal SDK 1.6.4.

Importing this module is cheap; the SDK (0.7 s) is imported by `Connection`.
"""

from __future__ import annotations

from modalrun.modal_api.connection import Connection
from modalrun.modal_api.run_sandbox import RunningSandbox, SandboxEnd, end_kind
from modalrun.modal_api.translate import translated

__all__ = ["Connection", "RunningSandbox", "SandboxEnd", "end_kind", "translated"]
