"""What each command declares: the permission that a caller of the same over HTTP needs, and if it changes anything.

Whoever runs a command owns the files, and may do everything; what is changed is noted in the audit all the same, before
it is done, so that nothing is done unnoted, and again with how it ended. Who looks at what is of every VO is told so
and noted, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from siteward.cli.options import Options
from siteward.cli.output import tell
from siteward.extensions import ExtensionError
from siteward.server.auth import Permission
from siteward.server.auth import declared as permission_declared
from siteward.server.auth.roles import EVERY

if TYPE_CHECKING:
    from siteward.server.resources import Resources
    from siteward.settings import Settings

Function = TypeVar("Function", bound=Callable[..., Any])
Vos = Callable[[Mapping[str, Any]], Collection[str]]
VERB: Final = "siteward_verb"
"""The attribute of a command's function."""
CHANGE: Final = "siteward.change"
"""What a command has changed, among what is known while it runs."""
ALL_VOS: Final = "all VOs, as the owner of this installation's files; it is noted in the audit"


class Unnoted(Exception):  # noqa: N818  # reads as what it would be.
    """A command was not run, since it could not be noted."""

    permanent = False


class Verb(msgspec.Struct, frozen=True):
    """A declaration.

    Attributes:
        permission: what a caller needs for it.
        is_noted: that it runs is noted, before it does.
        is_writing: it changes something.
        is_sending: it hands records to the broker, which an app that does so for it notes itself.
        is_look: it changes nothing, and shows what is of every VO.
        apart: parameters that are not noted, since they may name people: what is changed says it with pseudonyms.
        vos: whose it is what is changed or shown, from the parameters, where they tell; `*` for all. A look at nothing
            of this installation's, for which another one is asked, is none.
    """

    permission: Permission
    is_noted: bool = False
    is_writing: bool = False
    is_sending: bool = False
    is_look: bool = False
    apart: frozenset[str] = frozenset()
    vos: Vos = lambda _given: ()

    def __post_init__(self) -> None:
        """Refuse what only looks like a declaration.

        Raises:
            TypeError: the permission is none.
        """
        permission_declared(self.permission, "a command")


def reads(permission: Permission) -> Callable[[Function], Function]:
    """Declare a command that changes nothing, and shows nothing of any VO's."""
    return _declares(Verb(permission))


def changes(
    permission: Permission, *, apart: Collection[str] = (), vos: Vos = lambda _given: ()
) -> Callable[[Function], Function]:
    """Declare a command that changes something: it is noted before it runs, and how it ended. See `Verb`."""
    return _declares(Verb(permission, is_noted=True, is_writing=True, apart=frozenset(apart), vos=vos))


def sends(
    permission: Permission, *, apart: Collection[str] = (), vos: Vos = lambda _given: ()
) -> Callable[[Function], Function]:
    """Declare a command that hands records to the broker: it is noted as a change is, with `noted_sending`."""
    return _declares(Verb(permission, is_noted=True, is_writing=True, is_sending=True, apart=frozenset(apart), vos=vos))


def shows_all(
    permission: Permission, *, apart: Collection[str] = (), vos: Vos = lambda _given: (EVERY,)
) -> Callable[[Function], Function]:
    """Declare a command that changes nothing and shows what is of every VO: whoever runs it is told, and noted."""
    return _declares(Verb(permission, is_noted=True, is_look=True, apart=frozenset(apart), vos=vos))


def one_or_all(given: Mapping[str, Any]) -> Collection[str]:
    """Whose it is what a command shows or changes that takes `--vo`; all VOs' where that is not given."""
    return (given.get("vo", EVERY),)


def unless_elsewhere(given: Mapping[str, Any]) -> Collection[str]:
    """Whose it is what a command shows that asks another installation where it is given `--url`, which notes it."""
    return () if given.get("url") else (EVERY,)


def notes_itself(permission: Permission) -> Callable[[Function], Function]:
    """Declare a command that changes something and notes that itself, or changes nothing that is the installation's."""
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


class Sent:
    """How many records a command has handed on, by kind and VO, and how many it has refused."""

    def __init__(self) -> None:
        """None yet."""
        self.queued: dict[str, dict[str, int]] = {}
        self.rejected = 0

    def add(self, kind: str, vo: str, count: int = 1) -> None:
        """Count records that were taken."""
        of_kind = self.queued.setdefault(kind, {})
        of_kind[vo] = of_kind.get(vo, 0) + count


@contextmanager
def noted_sending(context: Any, producer: str) -> Iterator[Sent]:  # noqa: ANN401  # click's classes have moved.
    """Have the audit told which records a command has sent, also where it ends with an error.

    Args:
        context: of the command.
        producer: what the records' messages say of where they come from.

    Yields:
        Where they are counted.
    """
    sent = Sent()
    try:
        yield sent
    finally:
        vos = {vo for of_kind in sent.queued.values() for vo, count in of_kind.items() if count}
        told = {"producer": producer, "queued": sent.queued, "rejected": sent.rejected}
        # Each is added to those that are there: there is nothing that was before.
        tell_change(context, None, told, vos)


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
    def noting(context: Any) -> Any:  # noqa: ANN401  # click's classes have moved.
        chosen = context.obj if isinstance(context.obj, Options) else Options()
        given = {name: value for name, value in context.params.items() if value not in (None, "", (), [])}
        vos = verb.vos(given)
        given = {name: value for name, value in given.items() if name not in verb.apart}
        # A group's own command is not what one of its commands is asked for.
        is_another = bool(getattr(context, "_protected_args", ()))
        if is_another or (verb.is_look and not vos) or (verb.is_sending and not _is_noted_here(chosen.settings)):
            return run(context)
        if EVERY in vos and verb.is_look:
            tell(ALL_VOS)
        from siteward.server.auth.local_person import local_person  # noqa: PLC0415  # `--help` needs none of it.
        from siteward.server.resources import Resources  # noqa: PLC0415  # as above.

        with closing(Resources(chosen.settings)) as resources, ExitStack() as stack:
            with _audit_or_nothing():
                if verb.is_look:
                    _note_look(resources, context.command_path, given, vos)
                else:
                    audited = resources.audited(local_person(), context.command_path, given, vos)
                    change = stack.enter_context(audited)
            if verb.is_look:
                return run(context)
            try:
                return run(context)
            finally:
                if CHANGE in context.meta:
                    change.before, after, change.vos = context.meta[CHANGE]
                    change.after = {"given": given, "became": after}

    return noting


def _is_noted_here(settings: Settings) -> bool:
    """Whether records that are sent pass no app, and the audit of the installation that gets them is at hand."""
    url = settings.broker.url.lower()
    if url.startswith(("http:", "https:")):
        return False
    is_known = not url or url.startswith("embedded:") or bool(settings.access.url)
    if not (is_known or (settings.folder / "access.sqlite").exists()):
        return False
    if find_spec("sqlalchemy") is None:
        # Programs that only send need no more than the base install.
        tell("not noted in the audit: this needs sqlalchemy, which the base install leaves out")
        return False
    return True


def _note_look(resources: Resources, action: str, given: Mapping[str, Any], vos: Collection[str]) -> None:
    """Note a look by one entry, without the names in its conditions, as over HTTP."""
    from siteward.server.auth.asked_names import Fields, without_names  # noqa: PLC0415  # as above.
    from siteward.server.auth.audit import SEEN  # noqa: PLC0415  # as above.
    from siteward.server.auth.local_person import local_person  # noqa: PLC0415  # as above.

    fields = Fields.of(resources.kinds.values())
    told = {
        name: [without_names(name, text, fields) for text in value] if isinstance(value, (list, tuple)) else value
        for name, value in given.items()
    }
    resources.audit.note(local_person(), action, SEEN, vos, {"given": told})


@contextmanager
def _audit_or_nothing() -> Iterator[None]:
    """Let what cannot be noted not be done.

    Raises:
        Unnoted: the audit does not take it.
    """
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  # as above.

    from siteward.server.database import Conflict, DatabaseError  # noqa: PLC0415  # as above.

    try:
        yield
    except (SQLAlchemyError, DatabaseError, Conflict) as error:
        message = f"the audit cannot be written, and nothing is changed or shown without it: {error}"
        raise Unnoted(message) from error
