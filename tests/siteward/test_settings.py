"""Settings: one file, environment over it, secrets from files, and no key that nobody reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from siteward.settings import Settings, SettingsError, load_settings

TOKEN = "t" * 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "siteward.toml"


def test_nothing_configured_is_the_embedded_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without file and environment everything lies in one folder, and the app answers this machine only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    settings = load_settings(environ={})
    assert settings == Settings()
    folder = tmp_path / "share" / "siteward"
    assert settings.broker_url == f"embedded://{folder}/broker.sqlite"
    assert settings.monitoring_url == f"duckdb://{folder}/monitoring.duckdb"
    assert settings.accounting_url == f"sqlite:///{folder}/accounting.sqlite"
    assert settings.collector.leave_out == ("ledger", "prometheus")
    assert settings.spool == folder / "spool"
    assert settings.server.host == "127.0.0.1"


@pytest.mark.parametrize(("text", "names"), [("", ()), ("a", ("a",)), ("a, b", ("a", "b"))])
def test_lists_are_given_with_commas(text: str, names: tuple[str, ...]) -> None:
    """An environment variable has no brackets; an empty one is an empty list, over a default that is not."""
    assert load_settings(environ={"SITEWARD_COLLECTOR__LEAVE_OUT": text}).collector.leave_out == names


def test_environment_goes_over_the_file(file: Path) -> None:
    """A variable replaces the file's value, and leaves its neighbours alone."""
    file.write_text('log_level = "error"\n[broker]\nprefetch = 5\nlease = 7.5\n[server]\nport = 1\n')
    environ = {"SITEWARD_BROKER__PREFETCH": "9", "SITEWARD_SERVER__HOST": "localhost", "SITEWARD_CONFIG": str(file)}
    settings = load_settings(environ=environ)
    assert (settings.broker.prefetch, settings.broker.lease) == (9, 7.5)
    assert (settings.server.host, settings.server.port, settings.log_level) == ("localhost", 1, "error")


def test_file_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A given file goes before SITEWARD_CONFIG, and that before the working directory's."""
    other = file.with_name("other.toml")
    file.write_text("[server]\nport = 1\n")
    other.write_text("[server]\nport = 2\n")
    monkeypatch.chdir(file.parent)
    assert load_settings(environ={}).server.port == 1
    assert load_settings(environ={"SITEWARD_CONFIG": str(other)}).server.port == 2
    assert load_settings(file, environ={"SITEWARD_CONFIG": str(other)}).server.port == 1


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[brokr]\n", "setting 'brokr' is unknown; did you mean 'broker'"),
        ("[broker]\nprefech = 1\n", "setting 'broker.prefech' is unknown; did you mean 'prefetch'"),
        ("[prometheus]\ntoken_fil = 'x'\n", "did you mean 'token_file'"),
        ("[broker]\nprefetch = '7'\n", "setting broker.prefetch: Expected `int`"),
        ("[broker]\nprefetch = 0\n", "setting broker.prefetch: Expected `int` >= 1"),
        ("[server]\nport = 70000\n", "setting server.port"),
        ("log_level = 'loud'\n", "setting log_level"),
        ("broker = 1\n", "setting broker"),
        ("log_level = ", "siteward.toml"),
        ("[prometheus]\ntoken_file = '/nowhere/token'\n", "setting prometheus.token_file.*nowhere"),
    ],
)
def test_wrong_settings_are_named(file: Path, text: str, hint: str) -> None:
    """What cannot be used is refused at start with its key, and the nearest known one."""
    file.write_text(text)
    with pytest.raises(SettingsError, match=hint):
        load_settings(file, environ={})


@pytest.mark.parametrize(
    ("variable", "text", "hint"),
    [
        ("SITEWARD_BROKER__PREFECH", "1", "'broker.prefech' is unknown; did you mean 'prefetch'"),
        ("SITEWARD_BROKER__PREFETCH", "many", "environment variable SITEWARD_BROKER__PREFETCH"),
        ("SITEWARD_BROCKER__URL", "x", "environment variable SITEWARD_BROCKER__URL: 'brocker'"),
        ("SITEWARD_LOG_LEVEL__X", "x", "'log_level' is not a table"),
        ("SITEWARD_PORT", "1", "'port' is unknown"),
    ],
)
def test_wrong_variables_are_named(variable: str, text: str, hint: str) -> None:
    """A variable that sets nothing is refused as an unknown key would be."""
    with pytest.raises(SettingsError, match=hint):
        load_settings(environ={variable: text})


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    """A file that was asked for and is not there is not passed over."""
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_settings(tmp_path / "nowhere.toml", environ={})


def test_file_in_another_encoding_is_an_error(file: Path) -> None:
    """A file that is not UTF-8 is refused by name."""
    file.write_bytes(b'data = "\xff"')
    with pytest.raises(SettingsError, match=r"siteward\.toml"):
        load_settings(file, environ={})


def test_secrets_come_from_files(file: Path, tmp_path: Path) -> None:
    """A secret may stand in a file of its own, named in the settings or by a variable; its line end is not part."""
    secret = tmp_path / "token"
    secret.write_text(f"{TOKEN}\n")
    file.write_text(f'[prometheus]\ntoken_file = "{secret}"\n')
    assert load_settings(file, environ={}).prometheus.token == TOKEN
    assert load_settings(environ={"SITEWARD_PROMETHEUS__TOKEN_FILE": str(secret)}).prometheus.token == TOKEN
    assert load_settings(environ={"SITEWARD_PROMETHEUS__TOKEN": TOKEN}).prometheus.token == TOKEN
    ledger = load_settings(environ={"SITEWARD_ACCOUNTING__PASSWORD_FILE": str(secret)}).accounting
    assert ledger.password == TOKEN
    assert TOKEN not in repr(ledger)
