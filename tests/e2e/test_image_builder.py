"""The image builder version of a Modal environment, and the Python of a run's images."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from modal.environments import update_environment

from modalrun.errors import UsageError
from modalrun.localmodal import launcher
from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.store import Store
from modalrun.modal_api.account_check import AccountNeeds, check_account
from modalrun.modal_api.client import Connection
from modalrun.modal_api.image_builder import VARIABLE, image_builder
from modalrun.modal_api.images import build_images
from modalrun.plan.image_recipe import ImageRecipe, Slim
from modalrun.plan.model import Plan
from modalrun.run.run_plan import RunSettings
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.spec.precedence import Origin, Value
from modalrun.util.modal_catalog import BUILDER_PYTHONS

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

NONE = Value(None, Origin.DEFAULT, "")
PYTHON = ".".join(map(str, sys.version_info[:2]))


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A connection to a local Modal server of the test's own."""
    for name in [n for n in os.environ if n.startswith("MODAL")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(launcher.STATE_VARIABLE, str(tmp_path / "state"))
    for name, value in launcher.ensure_running().environ().items():
        monkeypatch.setenv(name, value)
    # The SDK remembers environments by their name, also those of other servers.
    monkeypatch.setattr("modal._environments.ENVIRONMENT_CACHE", {})
    yield Connection("local")
    launcher.stop()


def set_builder(connection: Connection, version: str) -> None:
    update_environment("main", new_image_builder_version=version, client=connection.client)


def build(connection: Connection, python: str) -> str:
    """Build the image of a run as a submission does; return its builder version."""
    sandbox = SandboxSpec(("true",), "main", Resources(), 60)
    images = {"main": ImageRecipe(Slim(python))}
    plan = Plan(
        "local", "p", RunSettings(app_name="a"), sandbox, images=images, origins={"workspace": NONE}
    )
    needs = AccountNeeds.of(plan)
    assert needs.pythons == (python,)
    builder = image_builder(connection, needs.environment, needs.pythons)
    (image_id,) = build_images(connection, plan, Path(), pinned=builder).values()
    assert VARIABLE not in os.environ or builder is None
    store = Store(StateDir(launcher.default_state_dir()).database)
    image = store.get("image", image_id)
    store.close()
    assert image is not None
    return str(image.document["builder_version"])


@pytest.mark.parametrize(
    ("environments", "python", "used"),
    [
        ("2026.10", "3.10", "2025.06"),
        ("2024.04", "3.13", "2026.10"),
        ("2024.10", "3.13", "2024.10"),
        ("2024.04", "3.11", "2024.04"),
        ("", "3.12", "2026.10"),
    ],
)
def test_a_builder_with_the_python(
    connection: Connection, environments: str, python: str, used: str
) -> None:
    set_builder(connection, environments)
    assert build(connection, python) == used
    chosen = image_builder(connection, None, [python])
    assert (chosen is not None) == (used != environments != "")
    if chosen is not None:
        assert f"image builder {environments} has no Python {python}" in chosen.note
    account = check_account("local", AccountNeeds(pythons=(python,)), lambda _: None)
    assert account == "the Modal SDK connects to it"


def test_what_is_configured_is_not_replaced(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "2024.10")
    assert build(connection, "3.10") == "2024.10"
    for python, configured in (("3.10", "2026.10"), ("3.13", "2023.12")):
        monkeypatch.setenv(VARIABLE, configured)
        with pytest.raises(UsageError) as caught:
            image_builder(connection, None, [python])
        message = str(caught.value)
        assert f"image builder {configured} has no Python {python}" in message
        assert ", ".join(BUILDER_PYTHONS[configured]) in message
        assert VARIABLE in str(caught.value.hint)
        with pytest.raises(UsageError):
            check_account("local", AccountNeeds(pythons=(python,)), lambda _: None)


def test_a_python_that_no_builder_has(connection: Connection) -> None:
    with pytest.raises(UsageError, match=r"has no Python 3\.9; it has 3\.11, 3\.12"):
        image_builder(connection, None, ["3.9"])


@pytest.mark.skipif(
    all(PYTHON in pythons for pythons in BUILDER_PYTHONS.values()),
    reason="every image builder has this Python",
)
def test_a_run_with_a_python_that_the_environments_builder_lacks(world: World) -> None:
    lacking = next(v for v, pythons in BUILDER_PYTHONS.items() if PYTHON not in pythons)
    command = ("environment", "update", "main", "--set-image-builder-version", lacking)
    assert world.modal(*command).exit_code == 0
    spec = "pipeline: diamond.diamond\ntarget: local\n"
    done = world.submit(spec)
    assert done.exit_code == 0, done.stderr
    assert f"note: the environment's image builder {lacking} has no Python {PYTHON}" in " ".join(
        done.stderr.split()
    )
    refused = world.submit(spec, **{VARIABLE: lacking})
    assert refused.exit_code == 2
    assert f"has no Python {PYTHON}" in refused.stderr
    assert len(world.runs()) == 1
