"""`modalrun logs`: the lines of a run, while it goes and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.e2e
