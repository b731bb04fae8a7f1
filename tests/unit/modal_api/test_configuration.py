"""Modal's configuration: the environment of the variable and of the profiles, and the token."""

from pathlib import Path

import pytest

from modalrun.errors import AuthenticationError, UsageError
from modalrun.localmodal import launcher
from modalrun.modal_api.client import require_whole_token
from modalrun.modal_api.configuration import configured_environment, local_server_note
from modalrun.run.run_plan import Target

PROFILES = """
[first]
token_id = "ak-1"
environment = "of-first"

[second]
environment = "of-second"
active = true

[third]
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "modal.toml"
    path.write_text(PROFILES)
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(path))
    for name in ("MODAL_PROFILE", "MODAL_ENVIRONMENT", launcher.STATE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return path


def found(target: Target = "modal") -> tuple[str, str] | None:
    value = configured_environment(target)
    return (value.value, value.source) if value else None


def test_the_active_profile() -> None:
    assert found() == ("of-second", "Modal profile 'second'")


@pytest.mark.parametrize(
    ("profile", "environment"), [("first", "of-first"), ("third", None), ("missing", None)]
)
def test_the_profile_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, profile: str, environment: str | None
) -> None:
    monkeypatch.setenv("MODAL_PROFILE", profile)
    assert found() == (environment and (environment, f"Modal profile '{profile}'"))


def test_the_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_ENVIRONMENT", "dev")
    assert found() == ("dev", "MODAL_ENVIRONMENT")
    # The workspace's default one.
    monkeypatch.setenv("MODAL_ENVIRONMENT", "")
    assert found() is None


def test_the_local_server_has_no_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_ENVIRONMENT", "dev")
    assert found("local") is None, "one of Modal's cloud"
    monkeypatch.setenv(launcher.STATE_VARIABLE, "/state")
    assert found("local") == ("dev", "MODAL_ENVIRONMENT")
    monkeypatch.delenv("MODAL_ENVIRONMENT")
    assert found("local") is None


def test_no_file_and_a_damaged_one(file: Path) -> None:
    file.write_text("[profile")
    with pytest.raises(UsageError, match="can't be read") as caught:
        found()
    assert caught.value.hint == "Restore or delete it."
    file.unlink()
    assert found() is None


def test_a_shell_that_points_to_the_local_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://127.0.0.1:4711"
    info = launcher.ServerInfo(url, "ak-1", "as-1", 1, tmp_path, "1", 0.0, isolated_python=False)
    monkeypatch.setattr(launcher, "running", lambda: info)
    assert local_server_note("modal") is None
    for name, value in info.environ().items():
        monkeypatch.setenv(name, value)
    assert "not Modal's cloud" in str(local_server_note("modal"))
    assert local_server_note("local") is None
    monkeypatch.setenv("MODAL_SERVER_URL", "https://api.modal.com")
    assert local_server_note("modal") is None


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ((None, None), "There is no Modal token"),
        (("ak-1", None), "the id of a token without its secret"),
        (("", "as-1"), "the secret of a token without its id"),
    ],
)
def test_a_missing_part_of_a_token_is_a_missing_token(
    token: tuple[str | None, str | None], said: str
) -> None:
    with pytest.raises(AuthenticationError, match=said) as caught:
        require_whole_token(*token)
    assert caught.value.exit_code == 3
