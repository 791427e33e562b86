"""Exact integer arithmetic on columns: shares of a value and sums of many, to the last unit whatever their size."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
_BITS: Final = 62
"""Bits that a step of the long division may fill; the sign and one more stay free."""
_WIDEST: Final = 2**61
"""Totals beyond it would leave no room for a digit."""


def shares(values: Integers, parts: Integers, totals: Integers) -> Integers:
    """Exactly `floor(value * part / total)` of each, though the product may pass 64 bits.

    Args:
        values: any 64-bit integers.
        parts: 0 to its total each.
        totals: 1 to 2^61 each.

    Returns:
        Integers of the same length; between 0 and the value, rounded down also below zero.
    """
    if not len(values):
        return values.copy()
    whole: Integers
    rest: Integers
    whole, rest = np.divmod(values, totals)
    largest = int(totals.max())
    assert 0 < largest <= _WIDEST, "totals are durations"
    # value = whole * total + rest, and whole * part is exact: it lies between 0 and the value.
    # One always fits: a remainder below 2^61 twice, and a part.
    bits = max(1, _BITS - largest.bit_length())
    if int(rest.max()).bit_length() + largest.bit_length() <= _BITS:
        return whole * parts + rest * parts // totals
    # Long division of rest * part by total, some bits of the rest at a time, the highest first.
    quotient = np.zeros_like(values)
    remainder = np.zeros_like(values)
    for shift in reversed(range(0, largest.bit_length(), bits)):
        digit = (rest >> shift) & ((1 << bits) - 1)
        carried: Integers = (remainder << bits) + digit * parts
        quotient = (quotient << bits) + carried // totals
        remainder = carried % totals
    found: Integers = whole * parts + quotient
    return found


def sums(values: Integers, firsts: Integers) -> Integers | npt.NDArray[np.object_]:
    """Sums of the runs that begin at `firsts`; Python's integers where 64 bits might not hold them.

    Args:
        values: at least one.
        firsts: where runs begin, ascending, the first of them 0.
    """
    largest = max(abs(int(values.max())), abs(int(values.min())))
    if largest * len(values) < 2**63:
        found: Integers = np.add.reduceat(values, firsts)
        return found
    wide: npt.NDArray[np.object_] = np.add.reduceat(values.astype(object), firsts)
    return wide
