"""Problems that keep a stack from working with Modal."""

import pytest

from modalrun.plan.stack import (
    Component,
    StackDescription,
    has_private_address,
    is_on_this_machine,
    problems_on_modal,
    wrong_stack,
)

REMOTE = Component("artifact_store", "s3", "s3")
LOCAL = Component("artifact_store", "default", "local", is_local=True, local_path="/stores/1")


def test_a_remote_stack_has_no_problems() -> None:
    deployer = Component("deployer", "default", "local", is_local=True)
    assert (
        problems_on_modal(StackDescription("i", "n", (REMOTE, deployer), "https://zenml.io")) == []
    )


def test_every_problem_is_named_in_one_message() -> None:
    tracker = Component("experiment_tracker", "mlflow", "mlflow", is_local=True)
    stack = StackDescription("i", "mine", (LOCAL, tracker))
    problems = problems_on_modal(stack)
    assert len(problems) == 3
    error = wrong_stack(stack, problems)
    assert error.exit_code == 2
    for part in ("'mine'", "'default'", "/stores/1", "'mlflow'", "zenml login"):
        assert part in error.message


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8237", True),
        ("http://127.0.0.1:8080/", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:80", True),
        ("http://0.0.0.0:80", True),
        ("https://zenml.example.com", False),
        ("http://10.0.0.7:8080", False),
        ("http://zenml:8080", False),
        ("https://localhost.example.com", False),
    ],
)
def test_on_this_machine(url: str, expected: bool) -> None:
    assert is_on_this_machine(url) is expected
    assert bool(problems_on_modal(StackDescription("i", "n", (REMOTE,), url))) is expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        *[
            ("http://10.0.0.7:8080", True),
            ("https://172.16.0.1", True),
            ("http://192.168.1.9", True),
        ],
        *[("http://100.64.0.1", True), ("http://[fd12::1]:80", True), ("http://169.254.1.1", True)],
        *[("http://[::ffff:10.0.0.7]", True), ("http://zenml", True), ("http://ZenML:80", True)],
        *[
            ("https://zenml.local", True),
            ("https://zenml.local.", True),
            ("http://x.internal", True),
        ],
        *[
            ("https://zenml.example.com", False),
            ("http://172.32.0.1", False),
            ("http://8.8.8.8", False),
        ],
        *[("http://100.128.0.1", False), ("http://[2606:4700::1]", False), ("", False)],
        *[("http://localhost:80", False), ("http://127.0.0.1", False), ("http://[::1]", False)],
    ],
)
def test_a_private_address(url: str, expected: bool) -> None:
    assert has_private_address(url) is expected
    stack = StackDescription("i", "n", (REMOTE,), url)
    assert problems_on_modal(stack) == [] or is_on_this_machine(url) or not expected


def test_a_store_without_credentials_has_no_other_hint() -> None:
    error = wrong_stack(StackDescription("i", "mine"), (), ["The artifact store has none."])
    assert (error.exit_code, error.hint) == (2, None)
    assert "The artifact store has none." in error.message
