"""Several pieces of work at the same moment, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable


def all_at_once(work: Iterable[Callable[[], object]]) -> list[BaseException]:
    """Start everything, wait for all of it; the errors of those that failed."""
    errors: list[BaseException] = []

    def caught(act: Callable[[], object]) -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001  # told by whoever asks.
            errors.append(error)

    threads = [threading.Thread(target=caught, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors
