"""What is chosen before the command: the settings file and the form of the output."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import typer

from siteward.settings import Settings, load_settings


class Options:
    """The global options of one run."""

    def __init__(self, config: Path | None = None, output: str = "table") -> None:
        """Keep them; nothing is read yet."""
        self.config = config
        self.output = output

    @cached_property
    def quiet_settings(self) -> Settings:
        """The settings, read and checked when first asked for, for commands that log nothing.

        Raises:
            siteward.settings.SettingsError: one of them cannot be used.
        """
        return load_settings(self.config)

    @cached_property
    def settings(self) -> Settings:
        """The same settings; from now on logging goes to standard error, as they say.

        Raises:
            siteward.settings.SettingsError: one of them cannot be used.
        """
        from siteward.log import configure_logging  # noqa: PLC0415  # costs more than quiet commands take.

        settings = self.quiet_settings
        configure_logging(settings.log_format, settings.log_level)
        return settings


def options(context: typer.Context) -> Options:
    """The options of this run; the defaults where a command is run by itself."""
    chosen = context.obj
    return chosen if isinstance(chosen, Options) else Options()
