"""`siteward query`: figures from records, asked of the running app, or of the store where none runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
import typer

from siteward.bearer_token import found_token, given_token
from siteward.cli.options import options
from siteward.cli.output import show, show_object, tell
from siteward.cli.verbs import shows_all, unless_elsewhere
from siteward.client import Client, ClientError
from siteward.holding import is_held
from siteward.oauth.logins import Login, kept_token
from siteward.query import AnswerRow, QueryError
from siteward.query_json import AnswerDocument, document
from siteward.query_text import QueryText, parse_query, split_list
from siteward.server.auth import Permission
from siteward.settings import Settings

OWN_DAYS: Final = 1 / 1440
"""Of the token that a command makes itself for the app of its own installation: a minute."""


@shows_all(Permission.READ, vos=unless_elsewhere)
def query(  # noqa: PLR0917  # Typer reads the options from the signature.
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="Name of the kind, such as job.")],
    measures: Annotated[str, typer.Option(help="What to compute, such as sum:wall_time,count.")] = "count",
    by: Annotated[str, typer.Option(help="Dimensions to group by, such as site,state.")] = "",
    where: Annotated[
        list[str] | None,
        typer.Option(help="Condition; may be repeated: state=failed, site~LCG.*, wall_time>=3600."),
    ] = None,
    start: Annotated[str, typer.Option(help="First instant: RFC 3339, a date, now, or relative: -24h.")] = "-24h",
    end: Annotated[str, typer.Option(help="First instant after the window.")] = "now",
    width: Annotated[str, typer.Option(help="Bucket: seconds, 15m, 1h, 1d, auto, or 0 for one.")] = "0",
    top: Annotated[int, typer.Option(min=0, help="Groups kept; the others become one. 0 keeps all.")] = 0,
    url: Annotated[str, typer.Option(help="Ask the Siteward at this address, and nobody else.")] = "",
) -> None:
    """Ask for figures: sums, means, counts and more, by dimensions and time.

    Asked is the app of this installation where it runs, else the store itself; with --url only the app there.
    With `--output json` the answer is one object, with its totals and the question as it was understood.
    Figures are exact; percentiles may be approximate, and the last line then says by how much.
    """
    chosen = options(context)
    text = QueryText(
        kind=kind,
        measures=split_list(measures),
        by=split_list(by),
        where=tuple(where or ()),
        start=start,
        end=end,
        width=width,
        top=top,
    )
    answer = ask(text, chosen.settings, url)
    if chosen.output == "json":
        show_object(answer)
        return
    timed = answer.query.width > 0
    columns = (*(("time",) if timed else ()), *answer.query.by, *answer.columns)
    show(columns, _rows(answer, timed=timed), chosen.output)
    groups = f"{answer.groups} group{'' if answer.groups == 1 else 's'}"
    tell(f"total: {', '.join(_totals(answer)) or 'no records'}; {groups}, {answer.took_ms:.1f} ms")


def _totals(answer: AnswerDocument) -> Iterator[str]:
    """Each known total with its unit, and how far it may be off."""
    errors = answer.errors or (0.0,) * len(answer.columns)
    for column, value, unit, error in zip(answer.columns, answer.totals, answer.units, errors, strict=True):
        if value is not None:
            text = f"{column} {value} {unit}".removesuffix(" 1")
            yield f"{text} (≈ ±{error * 100:.2g} %)" if error else text


def _rows(answer: AnswerDocument, *, timed: bool) -> Iterator[list[object]]:
    for row in answer.rows:
        yield [*([row.time] if timed else []), *_group(row, len(answer.query.by)), *row.values]


def _group(row: AnswerRow, width: int) -> list[object]:
    return ["Other", *[""] * (width - 1)] if row.other else list(row.group)


def ask(text: QueryText, settings: Settings, url: str = "") -> AnswerDocument:
    """The answer of the app at a URL; without one, that of this installation's app, else that of the store.

    Raises:
        QueryError: the question is at fault.
        ClientError: the app refuses, or the one at the URL does not answer.
    """
    client = asked_app(settings, url)
    if client is None:
        return _ask_store(text, settings)
    with refusals_of_questions():
        return client.query(**msgspec.structs.asdict(text))


def asked_app(settings: Settings, url: str = "") -> Client | None:
    """The app to ask: the one at a URL; without one, this installation's, and None where it does not run."""
    address = url or app_url(settings)
    if not address or not (url or Client(address).alive()):
        return None
    # Of our own installation, whoever runs this sees everything, and is told so; elsewhere nothing is guessed.
    return Client(address, _token(settings, url), vo=os.environ.get("SITEWARD_VO", "") if url else "*")


def _token(settings: Settings, url: str) -> str:
    """What to send: the user's token to another app; to our own one, where it asks for any, one of its own."""
    if url:
        given = given_token()
        # Who has logged in there means that, and not what some tool has left behind for another service.
        return kept_token(url.rstrip("/"), _renewed) or found_token() if given is None else given
    if not settings.issuers:
        return ""
    from siteward.server.auth.local_issuer import BRIEF, LocalIssuer  # noqa: PLC0415  # only where the app has issuers.
    from siteward.server.auth.local_person import local_person  # noqa: PLC0415

    person = local_person()
    return LocalIssuer(settings.issuer_file).token(person.identity.subject, person.grants, OWN_DAYS, BRIEF)


def _renewed(login: Login) -> Login:
    from siteward.cli.login import renewed  # noqa: PLC0415  # only where a log-in is over.

    return renewed(login)


@contextmanager
def refusals_of_questions() -> Iterator[None]:
    """What an app says of a question at fault is raised as if we had found it.

    Raises:
        QueryError: the question is at fault.
    """
    try:
        yield
    except ClientError as error:
        if error.problem.get("type") == "urn:siteward:query":
            raise QueryError(str(error)) from error
        raise


def app_url(settings: Settings) -> str:
    """Where the app of this installation said that it answers; "" where none runs.

    Not what the settings say: at that address the app of another data folder may answer.
    """
    path = settings.folder / "run" / "app.url"
    with suppress(OSError), path.open(encoding="utf-8") as file:
        # It is held while the app runs. One that was killed has left it behind, and anybody may listen there now.
        if is_held(file):
            return file.read().strip()
    return ""


def _ask_store(text: QueryText, settings: Settings) -> AnswerDocument:
    from siteward.server.auth.local_person import local_viewer  # noqa: PLC0415  # only where no app answers.
    from siteward.server.resources import Resources  # noqa: PLC0415  # as above.
    from siteward.server.seen import SeenStore  # noqa: PLC0415  # as above.

    with closing(Resources(settings)) as resources:
        store = SeenStore(resources.store, resources.kinds, local_viewer(settings), resources.people)
        asked = parse_query(text, resources.kinds, datetime.now(UTC))
        began = time.perf_counter()
        answer = store.query(asked)
        return document(answer, (time.perf_counter() - began) * 1000)
