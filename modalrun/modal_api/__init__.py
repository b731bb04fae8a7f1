"""The one package that imports `modal`. Written against the Modal SDK 1.6.4.

Importing this module is cheap; the SDK (0.7 s) is imported by `Connection`.
"""

from __future__ import annotations

from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.modal_api.running_sandbox import RunningSandbox

__all__ = ["Connection", "RunningSandbox", "translated"]
