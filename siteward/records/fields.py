"""The words in which a record kind is declared: dimensions, measures, products, ratios, bounds and their units."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

UNITS: Final[dict[str, str]] = {
    "1": "count or dimensionless ratio",
    "m1": "thousandths",
    "u1": "millionths",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "B": "bytes",
    "B/s": "bytes per second",
    "1/s": "per second",
    "J": "joules",
    "W": "watts",
    "HS06": "HEP-SPEC06 score",
    "HS23": "HEPscore23 score",
    "mHS06": "thousandths of HEP-SPEC06",
    "mHS23": "thousandths of HEPscore23",
    "HS06.s": "HEP-SPEC06 seconds",
    "HS23.s": "HEPscore23 seconds",
    "mHS06.s": "thousandths of HEP-SPEC06 seconds",
    "mHS23.s": "thousandths of HEPscore23 seconds",
    "uHS06.s": "millionths of HEP-SPEC06 seconds",
    "uHS23.s": "millionths of HEPscore23 seconds",
    "si2k": "SPECint2000 score",
    "si2k.s": "SPECint2000 seconds",
    "msi2k.s": "thousandths of SPECint2000 seconds",
    "K": "kelvin",
    "Hz": "hertz",
    "g": "grams (of carbon dioxide equivalent)",
}
"""Every unit a measure may have: a record in kB or minutes is refused, never converted in silence.

Base units only, and thousandths or millionths of those that are fractions by nature: sums and products are integers,
and exact.
"""

PER_SECOND: Final[dict[str, str]] = {
    "1": "1/s",
    "s": "1",
    "ms": "m1",
    "us": "u1",
    "B": "B/s",
    "J": "W",
    "HS06.s": "HS06",
    "HS23.s": "HS23",
    "mHS06.s": "mHS06",
    "mHS23.s": "mHS23",
    "si2k.s": "si2k",
}
"""The unit of a rate; of any other unit that with `/s` behind it."""

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)


class Combine(StrEnum):
    """How values of one measure combine when records are put together."""

    SUM = "sum"
    """Values add up: seconds used, bytes moved, jobs running at several sites."""
    MEAN = "mean"
    """Values are averaged: a load, a temperature, a fraction."""
    LAST = "last"
    """The latest value stands for all: a configured limit, a version number."""
    MAX = "max"
    """The largest value stands for all: a peak."""


class Dimension(msgspec.Struct, frozen=True):
    """What records are grouped and filtered by.

    Attributes:
        doc: one sentence for the manual.
        personal: names a person: stores hold a pseudonym in its place, the name is shown only to those who may see it.
        max_length: longest text accepted, in characters; a longer one is refused, never cut.
        bucketed: enters the ledger's buckets; false for what is nearly unique per record, such as a job's name.
        live: is a label of live series unless an operator chooses others; false for what would multiply them.
    """

    doc: str
    personal: bool = False
    max_length: int = 255
    bucketed: bool = True
    live: bool = True


class Former(msgspec.Struct, frozen=True):
    """The field whose place a measure has taken: what the ledger and its archive hold of it is read as the measure's.

    A measure that is to say something finer, or in another unit, needs a name of its own: nobody could tell values of
    the one from those of the other. It is a whole number, and no counter.

    Attributes:
        name: of the field that the kind had.
        times: how many of the measure's unit make one of that field's; more than 0.
    """

    name: str
    times: int = 1

    def value(self, said: float | None) -> int | None:
        """What a record said in that field, as the measure has it."""
        return None if said is None else round(said * self.times)


class Measure(msgspec.Struct, frozen=True):
    """What is counted or summed.

    Attributes:
        doc: one sentence for the manual.
        unit: one of UNITS.
        combine: how values combine over records.
        minimum: smallest value accepted.
        maximum: largest value accepted; None is the largest 64-bit integer, or no bound for a float.
        limit: largest value that is booked without a person looking at it; the doors accept a larger one, the ledger
            sets it aside. None is no limit.
        live: has live series unless an operator chooses others; false for what nobody watches by the minute.
        counter: counts up from record to record, from the kind's `since` on: only differences of it add up over time.
        averaged: the ledger keeps what a mean of it needs for ever, though it does not add up; false for what nobody
            averages over years.
        former: the field whose place it has taken; None for one that was always so.
    """

    doc: str
    unit: str
    combine: Combine = Combine.SUM
    minimum: int = 0
    maximum: int | None = None
    limit: int | None = None
    live: bool = True
    counter: bool = False
    averaged: bool = True
    former: Former | None = None


class Product:
    """A measure that is the product of measures of one record, such as wall time times processors.

    It cannot be recovered from sums of its factors, so a kind declares it and it is computed per record.
    """

    __slots__ = ("doc", "factors", "live", "unit")

    def __init__(self, *factors: str, unit: str, doc: str = "", live: bool = True) -> None:
        """Take the names of two or more measures of the same kind and the unit of the result; `live` as of Measure."""
        self.factors = factors
        self.unit = unit
        self.doc = doc or " times ".join(name.replace("_", " ") for name in factors)
        self.live = live


class Bound:
    """What a measure is at most in one record, by others of the same: processor time by wall time and processors.

    Like a limit: the doors accept what lies beyond it, and the ledger sets it aside. It is for what nobody could have
    used, so it is generous: sources differ in what they call wall time, and forget to say how many processors it was.
    """

    __slots__ = ("factor", "lasting", "measure", "of", "slack")

    def __init__(self, measure: str, *of: str, factor: float = 1, slack: float = 0, lasting: bool = False) -> None:
        """Bound a measure by the product of others, times a factor, plus a slack.

        Args:
            measure: name of the measure that is bounded.
            of: names of measures that are multiplied; a record that lacks one of them, or the bounded one, has none.
            factor: what their product is multiplied by.
            slack: what is added to it, in the unit of the bounded measure.
            lasting: multiply by the seconds that the record lasts, too: from start to end, or since a counter's start.
        """
        self.measure = measure
        self.of = of
        self.factor = factor
        self.slack = slack
        self.lasting = lasting

    def __str__(self) -> str:
        """For people, such as `1000 * wall_time * processors + 86400`."""
        factor = [] if self.factor == 1 else [f"{self.factor:g}"]
        product = " * ".join([*factor, *(["seconds that it lasts"] if self.lasting else []), *self.of])
        return f"{product} + {self.slack:g}" if self.slack else product


class Ratio:
    """One sum divided by another, such as processor time by core time.

    Neither a mean of ratios nor a ratio of means: whoever asks for it divides the sums over the records asked for.
    """

    __slots__ = ("denominator", "doc", "numerator", "times", "unit")

    def __init__(self, numerator: str, denominator: str, *, unit: str, doc: str = "", times: int = 1) -> None:
        """Divide measures that add up, or products, of the same kind.

        Args:
            numerator: name of what is divided.
            denominator: name of what it is divided by.
            unit: of the result.
            doc: one phrase for the manual.
            times: what the quotient is multiplied by to have that unit, such as a million where bytes are divided by
                microseconds and told in B/s; more than 0.
        """
        self.numerator = numerator
        self.denominator = denominator
        self.unit = unit
        self.doc = doc or f"{numerator} per {denominator}".replace("_", " ")
        self.times = times

    def __str__(self) -> str:
        """For people, such as `1000000 * size / transfer_duration`."""
        factor = "" if self.times == 1 else f"{self.times} * "
        return f"{factor}{self.numerator} / {self.denominator}"
