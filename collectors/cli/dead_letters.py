"""`siteward dead-letters`: records that were refused, and what to do with them."""

from __future__ import annotations

import getpass
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer

from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, show_object, tell
from siteward.cli.verbs import changes, one_or_all, shows_all, tell_change
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from collectors.dead_letters import DeadLetters
    from collectors.resubmission import Resubmission
    from siteward.broker import ParkedMessages

commands = typer.Typer(help="Records that were refused, and what to do with them.", no_args_is_help=True, **PLAIN)
messages = typer.Typer(help="Whole messages that nothing could be read from.", no_args_is_help=True, **PLAIN)
commands.add_typer(messages, name="messages")

COLUMNS: Final = ("number", "queue", "kind", "vo", "state", "times", "field", "value", "reason", "producer")
MESSAGE_COLUMNS: Final = ("number", "queue", "key", "records", "bytes", "at", "reason")
SHOWN_BYTES: Final = 200
Number = Annotated[int, typer.Argument(metavar="NUMBER", help="Number of the dead letter.")]
Numbers = Annotated[list[int], typer.Argument(metavar="NUMBER...", help="Numbers, as `list` shows them.")]
NoteText = Annotated[str, typer.Option("--note", help="Why, for those who come later.")]


@commands.command("list")
@shows_all(Permission.PLATFORM, apart=["reason"], vos=one_or_all)
def list_letters(  # noqa: PLR0917  # a command has as many parameters as it has options.
    context: typer.Context,
    state: Annotated[str, typer.Option(help="open, replayed, fixed, discarded, or all.")] = "open",
    kind: Annotated[str, typer.Option(help="Only this record kind.")] = "",
    vo: Annotated[str, typer.Option(help="Only this VO.")] = "",
    queue: Annotated[str, typer.Option(help="Only this sink's queue.")] = "",
    reason: Annotated[str, typer.Option(help="Only where reason, field or value contain this.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    after: Annotated[int, typer.Option(min=0, help="Only numbers after this one.")] = 0,
) -> None:
    """List dead letters, oldest first."""
    from collectors.dead_letters import Which  # noqa: PLC0415  # `--help` needs none of it.

    which = Which(state="" if state == "all" else state, kind=kind, vo=vo, queue=queue, reason=reason)
    with _letters(context) as letters:
        found = letters.find(which, limit=limit, after=after)
        total = letters.count(which)
    show(COLUMNS, ([getattr(each, name) for name in COLUMNS] for each in found), options(context).output)
    if len(found) == limit < total:
        tell(f"{total} in all; the next page: --after {found[-1].number}")


@commands.command("show", short_help="Show one dead letter, its bytes and its history.")
@shows_all(Permission.PLATFORM)
def show_letter(context: typer.Context, number: Number) -> None:
    """Show one dead letter with its bytes and what was done with it, as JSON."""
    from collectors.telling import letter_json  # noqa: PLC0415

    with _letters(context) as letters:
        show_object(letter_json(letters.show(number), letters.audit(number)))


@commands.command()
@shows_all(Permission.PLATFORM)
def counts(context: typer.Context) -> None:
    """Count dead letters by queue, kind and state."""
    with _letters(context) as letters:
        show(("queue", "kind", "state", "count"), letters.counts(), options(context).output)


@commands.command(short_help="Send a mended record in place of the refused one.")
@changes(Permission.PLATFORM, apart=["record"])
def fix(
    context: typer.Context,
    number: Number,
    record: Annotated[str, typer.Argument(help="The mended record: a JSON object, or a file's name; - is the input.")],
    note: NoteText = "",
) -> None:
    """Send a mended record in place of the refused one; it is validated first."""
    text = _text(record)
    with _letters(context) as letters, _resubmission(context, letters) as again, _states(context, letters, [number]):
        again.fix(number, text, getpass.getuser(), note)
    tell(f"dead letter {number} is fixed; the new record is queued")


@commands.command(short_help="Send records again as they are.")
@changes(Permission.PLATFORM)
def replay(context: typer.Context, numbers: Numbers, note: NoteText = "") -> None:
    """Send records again as they are, where today's kinds accept them; exits with 1 where one is refused again."""
    with _letters(context) as letters, _resubmission(context, letters) as again, _states(context, letters, numbers):
        _each(numbers, "replayed", lambda number: again.replay(number, getpass.getuser(), note))


@commands.command(short_help="Decide that records are not wanted.")
@changes(Permission.PLATFORM)
def discard(context: typer.Context, numbers: Numbers, note: NoteText = "") -> None:
    """Decide that records are not wanted; their bytes and your note are kept."""
    now = time.time_ns() // 1000
    with _letters(context) as letters, _states(context, letters, numbers):
        _each(numbers, "discarded", lambda number: letters.discard(number, getpass.getuser(), note, now))


@commands.command()
@changes(Permission.PLATFORM)
def resume(
    context: typer.Context, queue: Annotated[str, typer.Argument(help="The queue; by default every stopped one.")] = ""
) -> None:
    """Let a queue go on that a flood of refused records has stopped."""
    with _letters(context) as letters:
        reasons = {stop.queue: stop.reason for stop in letters.stops()}
        names = letters.resume(queue)
        tell_change(context, {name: reasons.get(name, "") for name in names}, dict.fromkeys(names, "goes on"))
    tell(f"goes on: {', '.join(names)}" if names else "no such queue was stopped")


@messages.command("list")
@shows_all(Permission.PLATFORM)
def list_messages(context: typer.Context) -> None:
    """List whole messages that nothing could be read from."""
    with _parked(context) as parked:
        rows = [
            (
                each.number,
                each.queue,
                each.message.key,
                each.message.count,
                len(each.message.body),
                each.at,
                each.reason,
            )
            for each in parked.parked()
        ]
    show(MESSAGE_COLUMNS, rows, options(context).output)


@messages.command("show")
@shows_all(Permission.PLATFORM)
def show_message(context: typer.Context, number: Number) -> None:
    """Show one message with the beginning of its bytes, as JSON."""
    with _parked(context) as parked:
        found = next((each for each in parked.parked() if each.number == number), None)
    if found is None:
        tell(f"siteward: there is no parked message {number}")
        raise typer.Exit(1)
    message = found.message
    show_object(
        {
            "number": found.number,
            "queue": found.queue,
            "reason": found.reason,
            "at": found.at,
            "key": message.key,
            "id": message.id,
            "records": message.count,
            "content_type": message.content_type,
            "content_encoding": message.content_encoding,
            "bytes": len(message.body),
            "beginning": message.body[:SHOWN_BYTES].decode("utf-8", "backslashreplace"),
        }
    )


@messages.command("replay", short_help="Put messages back into their queue.")
@changes(Permission.PLATFORM)
def replay_messages(context: typer.Context, numbers: Numbers) -> None:
    """Put messages back into their queue; exits with 1 where one is not there."""
    with _parked(context) as parked:
        count = parked.replay(numbers)
        tell_change(context, {"parked": numbers}, {"replayed": count})
        _report(count, len(numbers), "replayed")


@messages.command("discard", short_help="Forget messages for good.")
@changes(Permission.PLATFORM)
def discard_messages(context: typer.Context, numbers: Numbers) -> None:
    """Forget messages for good; exits with 1 where one is not there."""
    with _parked(context) as parked:
        count = parked.discard(numbers)
        tell_change(context, {"parked": numbers}, {"discarded": count})
        _report(count, len(numbers), "discarded")


@contextmanager
def _letters(context: typer.Context) -> Iterator[DeadLetters]:
    from collectors.database import database_path  # noqa: PLC0415  # `--help` needs none of it.
    from collectors.dead_letters import DeadLetters  # noqa: PLC0415

    path = database_path(options(context).settings)
    try:
        with DeadLetters(path) as letters:
            yield letters
    except sqlite3.Error as error:
        tell(f"siteward: {path}: {error}")
        raise typer.Exit(1) from error


@contextmanager
def _resubmission(context: typer.Context, letters: DeadLetters) -> Iterator[Resubmission]:
    from collectors.resubmission import Resubmission  # noqa: PLC0415
    from collectors.service import sink_opening  # noqa: PLC0415
    from siteward.broker.opening import open_declared  # noqa: PLC0415
    from siteward.kinds import load_kinds  # noqa: PLC0415
    from siteward.server.people_table import PeopleTable  # noqa: PLC0415

    settings = options(context).settings
    kinds = load_kinds(settings.kinds)
    with closing(open_declared(settings)) as broker, closing(PeopleTable(settings)) as people:
        yield Resubmission(letters, kinds, broker, sink_opening(settings, kinds), people)


@contextmanager
def _states(context: typer.Context, letters: DeadLetters, numbers: list[int]) -> Iterator[None]:
    """Have it noted what letters were, and what they became."""
    from collectors.dead_letters import UnknownLetter  # noqa: PLC0415

    def states() -> dict[str, str]:
        found = {}
        for number in numbers:
            with suppress(UnknownLetter):
                found[str(number)] = str(letters.show(number).state)
        return found

    before = states()
    try:
        yield
    finally:
        tell_change(context, before, states())


@contextmanager
def _parked(context: typer.Context) -> Iterator[ParkedMessages]:
    from siteward.broker.opening import open_declared  # noqa: PLC0415

    with closing(open_declared(options(context).settings)) as broker:
        if not hasattr(broker, "parked"):
            tell("siteward: this broker does not show its parked messages; look with its own tools")
            raise typer.Exit(1)
        yield cast("ParkedMessages", broker)


def _text(record: str) -> bytes:
    if record == "-":
        return typer.get_binary_stream("stdin").read()
    if record.lstrip().startswith("{"):
        return record.encode()
    try:
        return Path(record).read_bytes()
    except OSError as error:
        tell(f"siteward: {record}: {error.strerror}")
        raise typer.Exit(1) from error


def _each(numbers: list[int], done: str, act: Callable[[int], None]) -> None:
    """Act on every number, tell what could not be done, and fail if anything could not."""
    from collectors.dead_letters import Decided, UnknownLetter  # noqa: PLC0415
    from siteward.records import Refused  # noqa: PLC0415
    from siteward.sinks import SinkUnavailable  # noqa: PLC0415

    count = 0
    for number in numbers:
        try:
            act(number)
            count += 1
        except (Refused, UnknownLetter, Decided, SinkUnavailable) as error:
            tell(f"siteward: {number}: {error}")
    _report(count, len(numbers), done)


def _report(count: int, asked: int, done: str) -> None:
    tell(f"{count} of {asked} {done}")
    if count < asked:
        raise typer.Exit(1)
