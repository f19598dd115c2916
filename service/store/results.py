"""What one publication has answered: an answer is worked out once, also by those who ask for it at the same time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Results"]


class Results:
    """Tables by what was asked; the ones asked for last are kept, as many as fit into `limit_bytes`.

    It belongs to a publication, whose answers cannot change: nothing is ever invalidated. The next publication carries
    over what it knows to be the same.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._asked: OrderedDict[Hashable, Future[pa.Table]] = OrderedDict()
        self._bytes = 0

    def get(self, asked: Hashable, answer: Callable[[], pa.Table]) -> pa.Table:
        """The table that `answer` gave for `asked`, called where none is kept. Errors are everybody's, and not kept."""
        with self._lock:
            found = self._asked.get(asked)
            if found is not None:
                self._asked.move_to_end(asked)
            else:
                mine = self._asked[asked] = Future()
        if found is not None:
            return found.result()
        try:
            table = answer()
        except BaseException as error:
            with self._lock:
                del self._asked[asked]
            mine.set_exception(error)
            raise
        mine.set_result(table)
        self._trim(table.nbytes)
        return table

    def carry(self, same: Callable[[Hashable], bool]) -> Results:
        """New results that hold the answers of these to everything that is the `same`."""
        carried = Results(self._limit)
        with self._lock:
            kept = [(asked, found) for asked, found in self._asked.items() if found.done() and same(asked)]
        carried._asked.update(kept)
        carried._bytes = sum(found.result().nbytes for _, found in kept)
        return carried

    def _trim(self, added: int) -> None:
        """Count what was added, and forget what was asked for longest ago until the rest fits."""
        with self._lock:
            self._bytes += added
            for asked, kept in list(self._asked.items()):
                if self._bytes <= self._limit:
                    return
                if kept.done():
                    self._bytes -= kept.result().nbytes
                    del self._asked[asked]
