"""Structured logging: one event per line with its facts as keys; record ids yes, tokens never."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, Final

import structlog

SECRET_WORDS: Final = ("token", "password", "secret", "authorization", "cookie")
"""A key that contains one of these never shows its value."""


def configure_logging(log_format: str, level: str) -> None:
    """Set up logging once per process, to standard error.

    Args:
        log_format: "console" for people, "json" for machines.
        level: "debug", "info", "warning" or "error".
    """
    last: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            hide_secrets,
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def hide_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the values of keys that sound like secrets."""
    for key in event:
        if any(word in key.lower() for word in SECRET_WORDS):
            event[key] = "hidden"
    return event


class Logger:
    """Says what happens, and never raises: where nobody can listen, the work goes on all the same.

    A closed standard error, or one whose reader is gone, would otherwise end the thread that has something to say.
    """

    def __init__(self, name: str) -> None:
        """Name the module it speaks for."""
        self._name = name

    def debug(self, event: str, **facts: object) -> None:
        """Say what only its developers ask for."""
        self._say("debug", event, facts)

    def info(self, event: str, **facts: object) -> None:
        """Say what is as it should be."""
        self._say("info", event, facts)

    def warning(self, event: str, **facts: object) -> None:
        """Say what goes on all the same."""
        self._say("warning", event, facts)

    def error(self, event: str, **facts: object) -> None:
        """Say what somebody has to see to."""
        self._say("error", event, facts)

    def exception(self, event: str, **facts: object) -> None:
        """Say what somebody has to see to, and where the exception being handled was raised."""
        self._say("exception", event, facts)

    def _say(self, method: str, event: str, facts: dict[str, object]) -> None:
        with suppress(Exception):
            logger = structlog.get_logger(module=self._name)
            if not structlog.is_configured():
                # To standard error, if there is one: the program's standard output may be read by another program.
                sink = structlog.PrintLogger(sys.stderr) if sys.stderr else structlog.ReturnLogger()
                logger = structlog.wrap_logger(sink, module=self._name)
            getattr(logger, method)(event, **facts)


def get_logger(name: str) -> Logger:
    """A logger that names the module it speaks for."""
    return Logger(name)
