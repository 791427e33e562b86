"""What is told of a thing on RabbitMQ that is not as it should be."""

from __future__ import annotations

from typing import Literal

import msgspec

Thing = Literal["exchange", "queue", "binding", "policy"]
Problem = Literal["missing", "superfluous", "differs", "discards"]


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not as it should be.

    Attributes:
        thing: what it is.
        name: its name; of a binding, `source -> destination (key)`; of a policy, `policy -> queue`, where two that
            apply at once, an operator's among them, are joined by `+`.
        problem: it is missing, nobody asked for it, one of its arguments differs, or lets records vanish unseen.
        argument: the argument, or the policy's key.
        found: its value there.
        wanted: its value here.
        messages: what waits in a queue that nobody asked for.
    """

    thing: Thing
    name: str
    problem: Problem
    argument: str = ""
    found: str = ""
    wanted: str = ""
    messages: int | None = None
