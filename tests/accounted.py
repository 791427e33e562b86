"""Commands run in this process, with settings of the test's own, and what they find in the audit."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
import structlog

from siteward.cli import main
from siteward.server.auth.audit import Audit
from siteward.server.auth.local_person import local_person
from siteward.server.database import Database
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


def noted_long_ago(settings: Settings) -> None:
    """Leave two entries of ten days ago in the audit."""
    with closing(Audit(Database(settings.access_url), lambda: time.time() - 10 * 86_400)) as audit:
        audit.end(audit.ask(local_person(), "siteward lamp"), "done")
