"""The order of a run: it comes back as it was, is small, and holds no secret."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.run import manifest as orders
from modalrun.run.manifest import RunManifest, SandboxOrder, StepOrder
from modalrun.submit import source_changes

SANDBOX = SandboxOrder(
    command=("python", "-m", "modalrun.driver.supervisor", "modalrun.driver.step"),
    image="im-1",
    timeout=86_400,
    workdir="/app/code",
    env={"PYTHONUNBUFFERED": "1", "MODALRUN_TIMEOUT": "86400"},
)


def order(*steps: StepOrder, sandboxes: tuple[SandboxOrder, ...] = (SANDBOX,)) -> RunManifest:
    return RunManifest(
        run_id="2073f814-51c7-4a73-8174-90fe5c88b03c",
        pipeline="some",
        target="local",
        app="zenml-pipeline-some",
        failure_mode="continue_on_failure",
        driver=SANDBOX,
        sandboxes=sandboxes,
        steps=steps,
        variables=("ZENML_STORE_URL", "ZENML_STORE_API_TOKEN"),
        source_root="/somewhere",
        source_hash="0" * 64,
    )


names = st.text(min_size=1, max_size=30)
sandboxes = st.builds(
    SandboxOrder,
    command=st.tuples(names),
    image=names,
    timeout=st.integers(1, 86_400),
    workdir=names,
    gpus=st.lists(names, max_size=3).map(tuple),
    cpu=st.none() | st.floats(0.1, 64),
    memory=st.none() | st.integers(1, 10**6),
    regions=st.lists(names, max_size=3).map(tuple),
    env=st.dictionaries(names, names, max_size=3),
    volumes=st.dictionaries(names, names, max_size=3),
)
steps = st.builds(
    StepOrder,
    name=names,
    sandbox=st.just(0),
    upstream=st.lists(names, max_size=4).map(tuple),
    done=st.booleans(),
    look_up=st.booleans(),
    retries=st.integers(0, 9),
)


@given(st.lists(steps, max_size=5), sandboxes)
def test_it_comes_back_as_it_was(some: list[StepOrder], sandbox: SandboxOrder) -> None:
    made = order(*some, sandboxes=(sandbox,))
    assert orders.read(orders.write(made)) == made
    assert orders.from_metadata(json.loads(json.dumps(orders.to_metadata(made)))) == made


def test_a_thousand_steps_fit_into_one_value_of_metadata() -> None:
    many = [StepOrder(f"step_{n}", 0, upstream=(f"step_{n - 1}",)) for n in range(1000)]
    stored = orders.to_metadata(order(*many))
    assert list(stored) == ["modalrun_order_0"]
    assert len(stored["modalrun_order_0"]) < 20_000


def test_two_thousand_files_fit_into_one_value_of_metadata() -> None:
    files = {
        f"package/of_{n % 40}/module_{n}.py": hashlib.sha256(str(n).encode()).hexdigest()
        for n in range(2000)
    }
    made = replace(order(), source_files=source_changes.hashes_to_store(files))
    stored = orders.to_metadata(made)
    assert list(stored) == ["modalrun_order_0"]
    assert orders.from_metadata(stored) == made


def test_what_does_not_fit_into_one_value_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "PIECE", 100)
    made = order(*(StepOrder(f"step_{n}", 0) for n in range(50)))
    stored = orders.to_metadata(made)
    assert len(stored) > 2
    assert orders.from_metadata({**stored, "other": 1}) == made


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"version": 2}', '{"version": 1, "driver": {}}', "null"]
)
def test_a_damaged_order(text: str) -> None:
    with pytest.raises(ValueError, match=r"order|Expecting"):
        orders.read(text)


def test_no_order() -> None:
    assert orders.from_metadata({"modalrun_sandbox_id": "sb-1"}) is None
