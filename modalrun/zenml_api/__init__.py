"""The one place that reaches into ZenML's internals. Written against ZenML 0.98.0.

    translate   what ZenML raises -> our errors
    stacks      the stack of a run, with our orchestrator standing in
    compiling   run spec -> compiled deployment
    runs        run and step records: create, read, settle
    steps       running steps inside a sandbox
    versions    what differs between the versions of ZenML that work

Each of these imports ZenML (about two seconds); importing this package does not.
"""

from __future__ import annotations

import os
import sys

_ROOT = os.environ.get("ZENML_CUSTOM_SOURCE_ROOT")
if _ROOT is not None and "zenml.utils.source_utils" in sys.modules:
    # Imported before this sandbox existed (`submit.preload`), without its source root. In a
    # process of the user's it may be set already: ZenML's command line does so.
    sys.modules["zenml.utils.source_utils"].set_custom_source_root(_ROOT)
