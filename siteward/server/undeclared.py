"""What extensions bring says who may use it, or nothing starts: looked at before anybody could find out otherwise."""

from __future__ import annotations

from siteward.extensions import foreign


def refuse_undeclared() -> None:
    """Refuse to start beside a command or a task of an extension that declares no permission.

    Only theirs are loaded: our own are many, and tests look at each. Routes are looked at where the app is made.

    Raises:
        siteward.extensions.ExtensionError: naming it, and what to write.
    """
    if commands := foreign("siteward.commands"):
        from siteward.cli import command_of  # noqa: PLC0415  # only where an extension has any.

        for entry in commands:
            command_of(entry)
    if tasks := foreign("siteward.tasks"):
        from siteward.server.schedule import task_of  # noqa: PLC0415  # as above.

        for entry in tasks:
            task_of(entry)
