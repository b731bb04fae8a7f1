"""The packages that a sandbox's image needs, at the installed versions."""

from importlib import metadata

import pytest

from modalrun.errors import UsageError
from modalrun.submit import runtime_packages


class _Distribution:
    version = "1.2"

    def __init__(self, direct_url: str | None) -> None:
        self._direct_url = direct_url

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self._direct_url


@pytest.mark.parametrize(
    ("direct_url", "line"),
    [
        (None, "zenml==1.2"),
        (
            '{"url": "https://h/z", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
            "zenml @ git+https://h/z@abc",
        ),
        ('{"url": "https://h/z.whl", "archive_info": {}}', "zenml @ https://h/z.whl"),
    ],
)
def test_engine_at_the_versions_in_use(
    monkeypatch: pytest.MonkeyPatch, direct_url: str | None, line: str
) -> None:
    monkeypatch.setattr(runtime_packages, "ENGINE", ("zenml",))
    monkeypatch.setattr(metadata, "distribution", lambda name: _Distribution(direct_url))
    assert runtime_packages.engine_packages() == (line,)


def test_engine_that_only_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    direct_url = '{"url": "file:///home/me/zenml", "dir_info": {"editable": true}}'
    monkeypatch.setattr(runtime_packages, "ENGINE", ("zenml",))
    monkeypatch.setattr(metadata, "distribution", lambda name: _Distribution(direct_url))
    with pytest.raises(UsageError, match="file:///home/me/zenml"):
        runtime_packages.engine_packages()
    assert runtime_packages.engine_packages(built=False) == ("zenml==1.2",)


def test_a_store_that_is_no_server_needs_more_of_zenml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda name: _Distribution(None))
    packages = runtime_packages.engine_packages(server=False)
    assert packages[:2] == ("zenml[local]==1.2", "modal==1.2")
