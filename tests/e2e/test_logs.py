"""`modalrun logs`: the lines of a run, while it goes and after it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Command, Result, World

pytestmark = pytest.mark.e2e
