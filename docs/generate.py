"""Writes the reference pages from the code itself while mkdocs builds, so that no second list is kept in step."""  # noqa: INP001  # a hook of mkdocs, not a package.

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.main import get_group

from siteward import settings as settings_module
from siteward import settings_sections
from siteward.cli import application, command_of
from siteward.extensions import GROUPS, found
from siteward.kinds import load_kinds
from siteward.records import UNITS, Column, Dimension, Kind, Measure
from siteward.server.app import create_app
from siteward.server.auth.access import permissions
from siteward.settings import PREFIX, SECRETS, Settings
from siteward.telemetry import METRICS

GENERATED: Final = "This page is written from the code when the manual is built."


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs: add the generated pages to those that were written by hand."""
    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def code(value: object) -> str:
    """A value as inline code; nothing for an empty one."""
    return f"`{value}`" if value not in {"", None} else ""


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def page(title: str, *parts: str) -> str:
    """A page with its title and where it comes from."""
    return "\n\n".join((f"# {title}", f"*{GENERATED}*", *parts)) + "\n"


def kinds() -> str:
    """Every kind with its fields, products and identity, and the units they may have."""
    known = load_kinds()
    overview = table(
        ("kind", "shape", "kept for", "a record is"),
        ((f"[`{kind.name}`](#{kind.name})", kind.shape, _retention(kind), kind.doc) for kind in known.values()),
    )
    units = table(("unit", "is"), ((code(unit), meaning) for unit, meaning in UNITS.items()))
    return page(
        "Record kinds",
        "`siteward kinds` lists those of your installation, `siteward kinds show KIND` gives the JSON Schema.",
        overview,
        *(_kind(kind) for kind in known.values()),
        f"## Units\n\nNothing is converted in silence: a measure is given in its own unit.\n\n{units}",
    )


def _retention(kind: Kind) -> str:
    return f"{kind.retention.days} days" if kind.retention else "ever"


def _kind(kind: Kind) -> str:
    identity = ", ".join(code(name) for name in ("vo", *kind.identity))
    same = f"Two records with equal {identity} are the same record." if kind.identity else "Every record is a new one."
    parts = [
        f"## {kind.name}",
        f"{kind.doc} {same} Filed under `{kind.time}`; kept for {_retention(kind)}.",
        *_more(kind),
        table(("field", "type", "is a", "unit", "combines", "limit", "default", "meaning"), map(_column, kind.columns)),
    ]
    if kind.products:
        parts.append("Computed for each record:")
        parts.append(
            table(
                ("product", "of", "unit", "meaning"),
                (
                    (code(name), " · ".join(map(code, product.factors)), code(product.unit), product.doc)
                    for name, product in kind.products.items()
                ),
            )
        )
    if kind.ratios:
        parts.append("Divided when asked for, sum by sum:")
        parts.append(
            table(
                ("ratio", "of", "unit", "meaning"),
                ((code(name), code(str(ratio)), code(ratio.unit), ratio.doc) for name, ratio in kind.ratios.items()),
            )
        )
    return "\n\n".join(parts)


def _more(kind: Kind) -> Iterator[str]:
    """What a kind's class says beyond its first paragraph, and what the ledger does with its records."""
    if kind.record:
        yield from inspect.cleandoc(kind.record.__doc__ or "").split("\n\n")[1:]
    longest = f"longer than {kind.longest // 86_400_000_000} days" if kind.longest else ""
    limited = any(isinstance(column.role, Measure) and column.role.limit is not None for column in kind.measures)
    bounds = ", or ".join(f"{code(bound.measure)} above {code(str(bound))}" for bound in kind.bounds)
    parts = (longest, "with a value above its limit" if limited else "", f"with {bounds}" if bounds else "")
    reasons = ", or ".join(filter(None, parts))
    if kind.since:
        yield f"Counters count from {code(kind.since)} on; the ledger books what they counted since the record before."
    if kind.sent_by:
        yield f"Who may {kind.sent_by} sends them too, beside those who report."
    if not kind.booked:
        yield "The accounting ledger takes none of them."
    elif reasons:
        yield f"A record {reasons} is accepted, and booked only when a person has looked at it."
    if kind.booked and not kind.archived:
        yield "The ledger archives none of them: other answers are made of these records."


def _column(column: Column) -> tuple[object, ...]:
    measure = column.role if isinstance(column.role, Measure) else None
    role = "measure" if measure else "dimension" if column.role else "time"
    role += ", counter" if measure and measure.counter else ""
    role += ", personal" if column.personal else ""
    role += ", in no bucket" if isinstance(column.role, Dimension) and not column.role.bucketed else ""
    default = "required" if column.required else code(json.dumps(column.default))
    values = " ".join(code(value) for value in column.values)
    return (
        code(column.name),
        values or f"{column.type}{' or null' if column.optional else ''}",
        role,
        code(column.unit),
        measure.combine if measure else "",
        f"{measure.limit:,}".replace(",", " ") if measure and measure.limit is not None else "",
        default,
        column.doc,
    )


def settings() -> str:
    """Every setting with type, default, environment variable and meaning."""
    docs = _attribute_docs()
    sections: dict[str, list[tuple[object, ...]]] = {}
    for place, section, field in _settings(Settings, ""):
        key = f"{place}.{field.name}" if place else field.name
        has_variable = get_origin(field.type) is not dict and not {"KIND", "NAME"} & {*place.split(".")}
        sections.setdefault(place, []).append(
            (
                code(field.name),
                _type(field.type),
                _default(field),
                docs.get((section.__name__, field.name), ""),
                code(PREFIX + key.upper().replace(".", "__")) if has_variable else "",
            )
        )
    secrets = ", ".join(code(f"{secret}_file") for secret in SECRETS)
    return page(
        "Settings",
        "One TOML file: the one named by `--config`, else by the environment variable `SITEWARD_CONFIG`, else "
        "`siteward.toml` in the working directory. Environment variables go over it. An unknown key or a wrong type "
        "stops the program with the nearest known name. `siteward config check` shows what is in force and why.",
        f"Secrets may stand in files of their own: {secrets} name such a file.",
        *(
            f"## {code(f'[{place}]') if place else 'At the top'}\n\n"
            + table(("key", "type", "default", "meaning", "environment variable"), rows)
            for place, rows in sections.items()
        ),
    )


def _settings(
    section: type[msgspec.Struct], place: str
) -> Iterator[tuple[str, type[msgspec.Struct], msgspec.structs.FieldInfo]]:
    inner = []
    for field in msgspec.structs.fields(section):
        own = f"{place}.{field.name}" if place else field.name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            inner.append((field.type, own))
        elif get_origin(field.type) is dict and isinstance(get_args(field.type)[1], msgspec.StructMeta):
            yield place, section, field
            inner.append((get_args(field.type)[1], f"{own}.{'KIND' if field.name == 'shards' else 'NAME'}"))
        else:
            yield place, section, field
    for struct, name in inner:
        yield from _settings(struct, name)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    return code(json.dumps(field.default)) if field.default is not msgspec.NODEFAULT else code("{}")


def _type(hint: Any) -> str:  # noqa: ANN401  # a type expression.
    if get_origin(hint) is Annotated:
        inner, *metas = get_args(hint)
        bounds = [
            f"{sign} {getattr(meta, name):,}".replace(",", " ")
            for meta in metas
            for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
            if getattr(meta, name, None) is not None
        ]
        return f"{_type(inner)} {', '.join(bounds)}"
    if get_origin(hint) is Literal:
        return " or ".join(code(value) for value in get_args(hint))
    if get_origin(hint) is dict:
        return "tables"
    if get_origin(hint) is tuple:
        return "list of texts, with commas between them in the environment"
    return {str: "text", int: "integer", float: "number", bool: "true or false"}.get(hint, str(hint))


def _attribute_docs() -> dict[tuple[str, str], str]:
    """The text under each field of the settings' classes; Python itself does not keep it."""
    docs = {}
    classes = [
        cls for module in (settings_sections, settings_module) for cls in ast.parse(inspect.getsource(module)).body
    ]
    for cls in classes:
        if not isinstance(cls, ast.ClassDef):
            continue
        for field, text in zip(cls.body, cls.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                docs[cls.name, field.target.id] = str(text.value.value)
    return docs


def metrics() -> str:
    """Every metric of our own."""
    rows = ((code(each.name), each.type, " ".join(map(code, each.labels)), each.help) for each in METRICS)
    return page(
        "Metrics",
        "`GET /metrics` of the web application shows those of every process of the installation, in Prometheus' "
        "text format. Each sample also has the label `service`, the process that counted it; those of the queues "
        "have not. Counters start at zero when their process does.",
        table(("metric", "type", "labels", "meaning"), rows),
    )


def extension_points() -> str:
    """Every extension point and what Siteward itself registers there."""
    parts = []
    for group, contract in GROUPS.items():
        own = table(("name", "object"), ((code(entry.name), code(entry.value)) for entry in found(group).values()))
        parts.append(f"## {group}\n\n{contract}.\n\n{own}")
    return page(
        "Extension points",
        "Each is an entry-point group: a distribution registers a name and an object, and is found once it is "
        "installed. Siteward's own parts register in the same way. A name taken twice is an error that names both. "
        "`siteward extensions` lists what your installation has.",
        *parts,
    )


def command_line() -> str:
    """Every command with its arguments and options."""
    root = get_group(application)
    parts = [_command(["siteward"], root.help or "", root.params)]
    for name, entry in found("siteward.commands").items():
        parts += _commands(["siteward", name], command_of(entry))
    return page(
        "Command line",
        "Exit code 0 is done, 1 refused or failed, 2 wrong usage or settings. Data goes to standard output, "
        "everything said to people to standard error. `siteward --output json …` and `--output csv` are for programs.",
        *parts,
    )


def _commands(path: list[str], command: Any) -> Iterator[str]:  # noqa: ANN401  # click's classes have moved.
    yield _command(path, command.help or "", command.params)
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands([*path, name], inner)


def _command(path: list[str], text: str, parameters: Sequence[Any]) -> str:
    rows = [
        (
            " ".join(code(option) for option in (*each.opts, *each.secondary_opts))
            if each.param_type_name == "option"
            else code((each.metavar or each.name).upper()),
            "required" if each.required else _default(each.default) or _variable(each),
            getattr(each, "help", "") or "",
        )
        for each in parameters
        if each.name != "help"
    ]
    heading = f"##{'#' * (len(path) > 2)} {' '.join(path)}"  # noqa: PLR2004  # a command below a command.
    return "\n\n".join((heading, inspect.cleandoc(text), table(("option", "default", "meaning"), rows) if rows else ""))


def _variable(parameter: Any) -> str:  # noqa: ANN401  # of Typer or of Click.
    """The variable of the environment that gives an option, where there is one."""
    return code(f"${parameter.envvar}") if parameter.envvar else ""


def _default(value: object) -> str:
    return (
        code(json.dumps(value)) if isinstance(value, bool | int | float) or (value and isinstance(value, str)) else ""
    )


def http_api() -> str:
    """Every route with its permission, parameters and answers."""
    app = create_app(Settings())
    described = app.openapi()
    needed = {
        (method, getattr(route, "path", "")): permission
        for route, permission in permissions(app.router.routes)
        for method in getattr(route, "methods", ())
    }
    parts = []
    for path, methods in sorted(described["paths"].items()):
        for method, operation in methods.items():
            parts.append(_route(method.upper(), path, operation, needed[method.upper(), path]))
    return page(
        "HTTP API",
        "`GET /openapi.json` gives the same for programs. Errors are problem details (RFC 9457, "
        "`application/problem+json`) with `type`, `title`, `status`, `detail` and, where one is at fault, `field`, "
        "`value` and `reason`. Where the settings name an issuer, every route but the `public` ones wants "
        "`Authorization: Bearer …`.",
        *parts,
    )


def _route(method: str, path: str, operation: dict[str, Any], permission: str) -> str:
    rows = [
        (
            code(each["name"]),
            each["in"],
            "required" if each.get("required") else code(json.dumps(each.get("schema", {}).get("default", ""))),
            each.get("description", "") or " ".join(map(code, each.get("schema", {}).get("enum", ()))),
        )
        for each in operation.get("parameters", ())
    ]
    body = operation.get("requestBody", {})
    text = operation.get("description") or operation.get("summary", "")
    parts = [f"## {method} {path}", f"Permission: `{permission}`. {text}"]
    if rows:
        parts.append(table(("parameter", "in", "default", "meaning"), rows))
    if body:
        types = " or ".join(map(code, body["content"]))
        parts.append(f"Body: {types}. {body.get('description', '')}")
    return "\n\n".join(parts)


PAGES: Final[dict[str, Callable[[], str]]] = {
    "reference/kinds.md": kinds,
    "reference/settings.md": settings,
    "reference/metrics.md": metrics,
    "reference/extension-points.md": extension_points,
    "reference/command-line.md": command_line,
    "reference/http-api.md": http_api,
}
"""Every generated page, by its place in docs/."""
