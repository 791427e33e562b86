"""What each command declares: the permission that a caller of the same over HTTP needs, and if it changes anything.

Whoever runs a command owns the files, and may do everything; what is changed is noted in the audit all the same, before
it is done, so that nothing is done unnoted, and again with how it ended. So is who looks at what was refused, of all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any, Final, TypeVar

import msgspec

from siteward.cli.options import Options
from siteward.extensions import ExtensionError
from siteward.server.auth import Permission
from siteward.server.auth import declared as permission_declared
from siteward.server.auth.roles import EVERY

Function = TypeVar("Function", bound=Callable[..., Any])
Vos = Callable[[Mapping[str, Any]], Collection[str]]
VERB: Final = "siteward_verb"
"""The attribute of a command's function."""
CHANGE: Final = "siteward.change"
"""What a command has changed, among what is known while it runs."""


class Unnoted(Exception):  # noqa: N818  # reads as what it would be.
    """A command was not run, since it could not be noted."""

    permanent = False


class Verb(msgspec.Struct, frozen=True):
    """A declaration.

    Attributes:
        permission: what a caller needs for it.
        is_noted: that it runs is noted, before it does.
        is_writing: it changes something.
        apart: parameters that are not noted, since they may name people: what is changed says it with pseudonyms.
        vos: whose it is what is changed, from the parameters, where they tell; `*` for all.
    """

    permission: Permission
    is_noted: bool = False
    is_writing: bool = False
    apart: frozenset[str] = frozenset()
    vos: Vos = lambda _given: ()

    def __post_init__(self) -> None:
        """Refuse what only looks like a declaration.

        Raises:
            TypeError: the permission is none.
        """
        permission_declared(self.permission, "a command")


def reads(permission: Permission) -> Callable[[Function], Function]:
    """Declare a command that changes nothing."""
    return _declares(Verb(permission))


def changes(
    permission: Permission, *, apart: Collection[str] = (), vos: Vos = lambda _given: ()
) -> Callable[[Function], Function]:
    """Declare a command that changes something: it is noted before it runs, and how it ended. See `Verb`."""
    return _declares(Verb(permission, is_noted=True, is_writing=True, apart=frozenset(apart), vos=vos))


def shows_all(permission: Permission, *, apart: Collection[str] = ()) -> Callable[[Function], Function]:
    """Declare a command that changes nothing and shows what others sent, of every VO and as it came: it is noted."""
    return _declares(Verb(permission, is_noted=True, apart=frozenset(apart), vos=lambda _given: (EVERY,)))


def notes_itself(permission: Permission) -> Callable[[Function], Function]:
    """Declare a command that changes something and notes that itself, or sends records, which say who sent them."""
    return _declares(Verb(permission, is_writing=True))


def tell_change(
    context: Any,  # noqa: ANN401  # click's classes have moved.
    before: object,
    after: object,
    vos: Collection[str] = (),
) -> None:
    """Say what a command has changed, for the audit.

    Args:
        context: of the command.
        before: what it was; no record, and no secret.
        after: what it became.
        vos: whose it is, where the parameters do not tell; `*` for all.
    """
    context.meta[CHANGE] = before, after, vos


def _declares(verb: Verb) -> Callable[[Function], Function]:
    def declared(function: Function) -> Function:
        setattr(function, VERB, verb)
        return function

    return declared


def commands_below(command: Any, path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # click's classes have moved.
    """Every command that can be run, with its words."""
    below = getattr(command, "commands", None)
    if below is None or command.invoke_without_command:
        yield path, command
    for name, each in (below or {}).items():
        yield from commands_below(each, f"{path} {name}")


def verb_of(command: Any, path: str) -> Verb:  # noqa: ANN401  # as above.
    """What a command declares.

    Raises:
        ExtensionError: nothing, so that it is not run.
    """
    verb = getattr(command.callback, VERB, None)
    if not isinstance(verb, Verb):
        message = (
            f"the command `siteward {path}` declares no permission; give its function one, such as "
            "@reads(Permission.READ) or @changes(Permission.PLATFORM) of siteward.cli.verbs"
        )
        raise ExtensionError(message)
    return verb


def declared(command: Any, name: str) -> Any:  # noqa: ANN401  # as above.
    """A command, or a group of them, whose noted ones are.

    Raises:
        ExtensionError: one of them declares nothing.
    """
    for path, each in commands_below(command, name):
        verb = verb_of(each, path)
        if verb.is_noted:
            each.invoke = _noting(verb, each.invoke)
    return command


def _noting(verb: Verb, run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def noting(context: Any) -> Any:  # noqa: ANN401  # as above.
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  # `--help` needs none of it.

        from siteward.server.auth.local_person import local_person  # noqa: PLC0415  # as above.
        from siteward.server.database import Conflict, DatabaseError  # noqa: PLC0415
        from siteward.server.resources import Resources  # noqa: PLC0415

        chosen = context.obj if isinstance(context.obj, Options) else Options()
        given = {name: value for name, value in context.params.items() if value not in {None, "", ()}}
        vos = verb.vos(given)
        given = {name: value for name, value in given.items() if name not in verb.apart}
        with closing(Resources(chosen.settings)) as resources, ExitStack() as stack:
            try:
                change = stack.enter_context(resources.audited(local_person(), context.command_path, given, vos))
            except (SQLAlchemyError, DatabaseError, Conflict) as error:
                message = f"the audit cannot be written, and nothing is changed or shown without it: {error}"
                raise Unnoted(message) from error
            try:
                return run(context)
            finally:
                if CHANGE in context.meta:
                    change.before, after, change.vos = context.meta[CHANGE]
                    change.after = {"given": given, "became": after}

    return noting
