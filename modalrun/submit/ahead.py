"""Ask Modal, while ZenML is imported and compiles, what the submission will ask it.

What that is says an earlier submission with the same key (`fingerprint.of_spec`). Nothing that is
asked ahead creates anything but mounted files, which Modal keeps with the app: no app, no image
and no sandbox. An answer is used if the submission asks exactly that, and dropped otherwise: an
entry that is wrong costs nothing. A failure is dropped too; it comes again where it belongs.

The sandbox itself is not created ahead. Its run must exist first: the sandbox gets its name, its
tags and its token from the run, and by that name a sandbox is found whose creation was not
answered. And a sandbox costs money while a pipeline compiles that may not compile.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from modalrun.errors import ModalrunError
from modalrun.modal_api import image_builder, images, sdk_internals
from modalrun.modal_api.account_check import AccountNeeds
from modalrun.modal_api.client import Connection, load_sdk
from modalrun.modal_api.gateway import ModalGateway
from modalrun.modal_api.image_builder import PinnedBuilder
from modalrun.plan.image_recipe import RegistryCredentials
from modalrun.plan.model import Plan
from modalrun.run.run_plan import Target
from modalrun.run.values import adapter
from modalrun.submit.source.ahead import SourceAhead
from modalrun.util import background

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """What a submission has asked Modal.

    Attributes:
        own_token: Whether the stack's orchestrator has a Modal token of its own.
        environment: The Modal environment that was looked up; None for the default one.
        needs: The names that were looked up.
        images: Modal's ids of the built images, by their keys (`images.key_of`).
        run_image: Modal's id of the image of the run sandbox.
    """

    own_token: bool = False
    environment: str | None = None
    needs: AccountNeeds | None = None
    app: str | None = None
    images: Mapping[str, str] = field(default_factory=dict)
    run_image: str | None = None

    @staticmethod
    def from_json(values: Any) -> Asked:
        """Read what `to_json` returned; for anything else, return that nothing is known."""
        try:
            return adapter(Asked).validate_python(values)
        except ValidationError:
            return Asked()

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without credentials."""
        values = asdict(self)
        if values["needs"] is not None:
            del values["needs"]["credentials"]
        return values


class ModalAhead(ModalGateway):
    """Be the gateway of one submission, and ask ahead of it.

    Attributes:
        asked: What this submission has asked.
    """

    def __init__(self, earlier: Asked, source: SourceAhead | None = None) -> None:
        """
        Args:
            earlier: What an earlier submission has asked.
        """
        # Tests have another class between this one and the gateway.
        self._modal = cast(ModalGateway, super())
        self.asked = Asked()
        self._earlier = earlier
        self._source = source
        self._connecting: tuple[Hashable, Future[Connection]] | None = None
        self._answers: dict[Hashable, Future[Any]] = {}

    def begin(self, target: Target) -> None:
        """Connect in another thread, and look up from there what is known."""
        if self._earlier.own_token:
            return
        with contextlib.suppress(ModalrunError):
            # Here: two threads that import circular packages can fail.
            load_sdk()
            call = background.begin(lambda: self._connect(target, None), "modal")
            self._connecting = _key_of_connection(target, None), call

    def connect(self, target: Target, *, credentials: tuple[str, str] | None = None) -> Connection:
        """Return the connection that was begun, if it is the same; else connect."""
        self.asked = replace(self.asked, own_token=credentials is not None)
        begun = self._connecting
        if begun is not None and begun[0] == _key_of_connection(target, credentials):
            with contextlib.suppress(Exception):
                return background.outcome(begun[1], "wait for the connection")
        return self._connect(target, credentials)

    def environment_name(self, connection: Connection, name: str | None) -> str:
        """Do as `account_check.environment_name`."""
        self.asked = replace(self.asked, environment=name)
        return self._answer(
            (connection, ("environment", name)),
            lambda: self._modal.environment_name(connection, name),
        )

    def check_names(self, connection: Connection, needs: AccountNeeds) -> None:
        """Do as `account_check.check_names`."""
        self.asked = replace(self.asked, needs=needs)
        self._answer(
            (connection, ("names", needs)), lambda: self._modal.check_names(connection, needs)
        )

    def check_workspace(self, connection: Connection, needs: AccountNeeds) -> None:
        """Do as `account_check.check_workspace`."""
        self._answer(
            (connection, ("workspace", needs)),
            lambda: self._modal.check_workspace(connection, needs),
        )

    def send(
        self, connection: Connection, plan: Plan, source: Path, pinned: PinnedBuilder | None
    ) -> None:
        """Mount the source tree for the run sandbox, if its image is known."""
        known = self._known(connection, plan, pinned)
        image = known.get(plan.run_sandbox.image)
        if (begun := self._answers.get((connection, "source"))) is not None:
            with contextlib.suppress(Exception):
                background.outcome(begun, "wait for the source")
        if image is not None and (image, source) not in connection.mounted:
            app = connection.app(plan.settings.app_name, plan.settings.modal_environment)
            self._modal.mount(connection, app, image, source)

    def build_images(
        self,
        connection: Connection,
        plan: Plan,
        source: Path,
        registry: RegistryCredentials | None = None,
        pinned: PinnedBuilder | None = None,
    ) -> dict[str, str]:
        """Do as `images.build_images`, without those that Modal is known to have."""
        found = self._known(connection, plan, pinned)
        rest = {key: recipe for key, recipe in plan.images.items() if key not in found}
        if rest:
            few = replace(plan, images=rest)
            found |= self._modal.build_images(connection, few, source, registry, pinned)
        keys = _keys(connection, plan, pinned)
        self.asked = replace(
            self.asked,
            app=plan.settings.app_name,
            images={keys[name]: image for name, image in found.items() if name in keys},
            run_image=found[plan.run_sandbox.image],
        )
        return found

    def _connect(self, target: Target, credentials: tuple[str, str] | None) -> Connection:
        """Connect, and look up what is known."""
        connection = self._modal.connect(target, credentials=credentials)
        earlier = self._earlier
        if earlier.needs is None or earlier.app is None:
            return connection
        needs, name, app = earlier.needs, earlier.environment, earlier.app

        def look_up_images() -> frozenset[str]:
            sdk_internals.load_token(connection)
            found = connection.app(app, needs.environment, create=False)
            known = frozenset(earlier.images.values())
            return self._modal.look_up_images(connection, found, known)

        def send_source() -> None:
            image, source = earlier.run_image, self._source
            if image is None or source is None or not source.is_that_of_earlier_run():
                return
            if image in self._answers[connection, "images"].result():
                found = connection.app(app, needs.environment, create=False)
                self._modal.mount(connection, found, image, source.folder)

        calls: dict[Hashable, Callable[[], object]] = {
            "images": look_up_images,
            "source": send_source,
            ("environment", name): lambda: self._modal.environment_name(connection, name),
            ("names", needs): lambda: self._modal.check_names(connection, needs),
            ("workspace", needs): lambda: self._modal.check_workspace(connection, needs),
        }
        for key, call in calls.items():
            self._answers[connection, key] = background.begin(call, "modal")
        return connection

    def _answer(self, key: Hashable, call: Callable[[], T]) -> T:
        """Return the answer to what was asked ahead; else ask."""
        if (begun := self._answers.pop(key, None)) is not None:
            with contextlib.suppress(Exception):
                answer: T = background.outcome(begun, "wait for Modal")
                return answer
        return call()

    def _known(
        self, connection: Connection, plan: Plan, pinned: PinnedBuilder | None
    ) -> dict[str, str]:
        """Return Modal's ids of the images of a plan that an earlier submission has built."""
        begun = self._answers.get((connection, "images"))
        if begun is None:
            return {}
        with contextlib.suppress(Exception):
            there: frozenset[str] = background.outcome(begun, "wait for the images")
            ids = self._earlier.images
            keys = _keys(connection, plan, pinned)
            return {name: ids[key] for name, key in keys.items() if ids.get(key) in there}
        return {}


def _keys(connection: Connection, plan: Plan, pinned: PinnedBuilder | None) -> dict[str, str]:
    """Return the keys (`images.key_of`) of the images that have one."""
    builder = (
        pinned.version
        if pinned is not None
        else image_builder.usual_builder(connection, plan.settings.modal_environment)
    )
    keys = {name: images.key_of(recipe, builder) for name, recipe in plan.images.items()}
    return {name: key for name, key in keys.items() if key is not None}


def _key_of_connection(target: Target, credentials: tuple[str, str] | None) -> Hashable:
    # The user's code may set variables when it is imported.
    variables = {name: value for name, value in os.environ.items() if name.startswith("MODAL_")}
    return target, credentials, frozenset(variables.items())
