"""What `modalrun init` registers in ZenML, and how that is undone."""

from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.plan.stack import StackDescription
from modalrun.zenml_api import registration


class Client:
    """Stand for ZenML's client of a user who has registered nothing."""

    active_stack_model = SimpleNamespace(name="my own")

    def list_flavors(self, **_: Any) -> Any:
        return SimpleNamespace(total=0)

    def list_stack_components(self, **_: Any) -> Any:
        return SimpleNamespace(total=0)

    def get_stack(self, name_or_id: str, **_: Any) -> Any:
        if name_or_id == "new one":
            raise KeyError
        return SimpleNamespace(components={})

    def create_flavor(self, *_: Any) -> None: ...

    def create_stack_component(self, *_: Any) -> Any:
        return SimpleNamespace(id="orchestrator")

    def create_stack(self, *_: Any) -> None: ...


def test_the_commands_that_undo_it_work_once_the_stack_is_active(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registration, "Client", Client)

    made = registration.register(StackDescription("id", "base"), "new one", "local")

    # ZenML refuses to delete the active stack.
    assert made.undo == (
        "zenml stack set 'my own'",
        "zenml stack delete 'new one' -y",
        "zenml orchestrator delete 'new one'",
        "zenml orchestrator flavor delete modalrun",
    )
    assert not made.active
