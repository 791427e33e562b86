"""Settings with a ledger, and commands run with them in this process."""

from __future__ import annotations

import msgspec
import pytest

from siteward.cli import main
from siteward.settings import Settings


class Accounting(msgspec.Struct, frozen=True):
    """The part of the settings that names the ledger."""

    password: str = ""


class Accounted(Settings):
    """Settings with a ledger in the data folder."""

    accounting: Accounting = Accounting()

    @property
    def accounting_url(self) -> str:
        return f"sqlite:///{self.folder / 'accounting.sqlite'}"


def ran(monkeypatch: pytest.MonkeyPatch, settings: Settings, *arguments: str) -> int:
    """The exit code of `siteward …` with settings."""
    monkeypatch.setattr("siteward.cli.options.load_settings", lambda _: settings)
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)
