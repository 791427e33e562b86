"""Columns that say the same in every row: written once into a statement; most fields of wide kinds are unused."""

from __future__ import annotations

from typing import Final

import numpy as np

from siteward.server.database import Columns, Values

WORTH_IT: Final = 100
"""Rows from which on a statement of its own costs less than the values that it saves."""


def parted(columns: Columns) -> tuple[Columns, dict[str, str]]:
    """Columns whose rows may differ, among them the first one always, and those that are the same throughout as SQL.

    Only what every database writes in the same way becomes SQL: NULL, whole numbers, and the empty text.
    """
    first, *others = columns
    if len(columns[first]) < WORTH_IT:
        return columns, {}
    constants = {name: literal for name in others if (literal := _literal(columns[name])) is not None}
    return {name: values for name, values in columns.items() if name not in constants}, constants


def _literal(values: Values) -> str | None:
    value = values[0]
    if isinstance(values, np.ndarray):
        return str(int(value)) if isinstance(value, np.integer) and bool((values == value).all()) else None
    if not (value is None or isinstance(value, int) or (isinstance(value, str) and not value)):
        return None
    if values.count(value) != len(values):
        return None
    return "NULL" if value is None else str(int(value)) if isinstance(value, int) else "''"
