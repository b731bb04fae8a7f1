"""Collect the functions on Modal that other packages call, so that tests can replace them."""

from __future__ import annotations

from pathlib import Path

from modalrun.modal_api import account_check, commands, image_builder, images, mounts
from modalrun.modal_api.client import Connection
from modalrun.modal_api.image_builder import PinnedBuilder
from modalrun.modal_api.log_history import History
from modalrun.modal_api.log_streams import OutputStreams
from modalrun.modal_api.sandboxes import run_sandboxes, step_sandboxes
from modalrun.modal_api.sandboxes.termination import SandboxGroup
from modalrun.plan.model import Plan


class ModalGateway:
    """Create, find, read and end the sandboxes of runs on Modal. Tests override methods."""

    connect = staticmethod(Connection)
    environment_name = staticmethod(account_check.environment_name)
    check_names = staticmethod(account_check.check_names)
    check_workspace = staticmethod(account_check.check_workspace)
    image_builder = staticmethod(image_builder.image_builder)
    look_up_images = staticmethod(mounts.look_up)
    mount = staticmethod(mounts.mount)
    build_images = staticmethod(images.build_images)
    create_run_sandbox = staticmethod(run_sandboxes.create)
    create_ahead = staticmethod(step_sandboxes.create_ahead)
    find_running = staticmethod(run_sandboxes.find_running)
    find_announced = staticmethod(run_sandboxes.find_announced)
    find_last = staticmethod(run_sandboxes.find_last)
    terminate = staticmethod(run_sandboxes.terminate)
    sandboxes_of = staticmethod(SandboxGroup)
    app_id = staticmethod(run_sandboxes.app_id)
    sandbox_state = staticmethod(run_sandboxes.sandbox_state)
    run_sandbox = staticmethod(run_sandboxes.run_sandbox)
    running_steps = staticmethod(run_sandboxes.running_steps)
    running_run_sandbox = staticmethod(run_sandboxes.running_run_sandbox)
    run_command = staticmethod(commands.run_command)
    has_ended = staticmethod(commands.has_ended)
    log_streams = staticmethod(OutputStreams)
    log_history = staticmethod(History)

    def send(
        self, connection: Connection, plan: Plan, source: Path, pinned: PinnedBuilder | None
    ) -> None:
        """Do nothing: the creation sends the source tree, and `ModalAhead` before the run exists.

        Args:
            connection: To Modal.
            plan: The plan, with the images.
            source: The source tree.
            pinned: The image builder version; None for the usual one.
        """


MODAL = ModalGateway()
