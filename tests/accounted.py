"""Commands run in this process, with settings of the test's own."""

from __future__ import annotations

import pytest
import structlog

from siteward.cli import main
from siteward.settings import Settings


def ran(monkeypatch: pytest.MonkeyPatch, settings: Settings, *arguments: str) -> int:
    """The exit code of `siteward …` with settings."""
    monkeypatch.setattr("siteward.cli.options.load_settings", lambda _: settings)
    try:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
    finally:
        # A command sets logging up for its process, here with this test's standard error.
        structlog.reset_defaults()
    return int(ended.value.code or 0)
