"""Structured logging: one event per line with its facts as keys; record ids yes, tokens never."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
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


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that names the module it speaks for."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(module=name)
    return logger
