"""What one group holds in one period: exact sums, and the values of its records where single values are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from math import fsum
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from accounting.query.observed import Observed
from accounting.query.observed import together as observed_together
from siteward.query import Value

Sample = npt.NDArray[Any]
"""Values of the records that know them: 64-bit integers, or numbers."""
NO_SAMPLE: Final[Sample] = np.empty(0, np.int64)
_AT_ONCE: Final = 100_000


class Amounts(msgspec.Struct, frozen=True):
    """What one group holds in one period.

    Attributes:
        sums: by bucket column.
        samples: by measure.
        observed: of snapshots, in place of both; None of other kinds, and where there is nothing.
    """

    sums: Mapping[str, int]
    samples: Mapping[str, Sample] = msgspec.field(default_factory=dict)
    observed: Observed | None = None


def together(parts: Sequence[Amounts]) -> Amounts:
    """The amounts of disjoint sets of records, at least one, as those of all of them."""
    first, *others = parts
    if not others:
        return first
    sums = {name: sum(part.sums[name] for part in parts) for name in first.sums}
    samples = {name: _joined([part.samples[name] for part in parts]) for name in first.samples}
    observed = [part.observed for part in parts if part.observed is not None]
    return Amounts(sums, samples, observed_together(observed) if observed else None)


def percentile(sample: Sample, hundredths: int) -> Value:
    """The value at so many hundredths of the way through the ordered values; None without any.

    Between two of them by linear interpolation, rounded once. The first and the last are what they are. Values are put
    into another order where they are: of millions there is no second copy.
    """
    if not len(sample):
        return None
    place, rest = divmod((len(sample) - 1) * hundredths, 100)
    following = min(place + 1, len(sample) - 1)
    sample.partition([place, following])
    low: int | float = sample[place].item()
    if hundredths in {0, 100}:
        return low
    high: int | float = sample[following].item()
    # Of integers the numerator is exact, whatever their size.
    return (low * 100 + (high - low) * rest) / 100 if isinstance(low, int) else low + (high - low) * (rest / 100)


def mean(sample: Sample) -> Value:
    """The sum divided by the number, rounded once, so that no order matters; None without any."""
    if not len(sample):
        return None
    slices = (sample[first : first + _AT_ONCE].tolist() for first in range(0, len(sample), _AT_ONCE))
    values = chain.from_iterable(slices)
    return (sum(values) if sample.dtype.kind == "i" else fsum(values)) / len(sample)


def _joined(samples: Sequence[Sample]) -> Sample:
    known = [sample for sample in samples if len(sample)]
    return known[0] if len(known) == 1 else np.concatenate(known) if known else NO_SAMPLE
