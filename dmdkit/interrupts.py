"""Signals that ask for an end, held back while something must not be left half done."""
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ASKS_FOR_AN_END = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Notes SIGINT (Ctrl-C, a notebook's interrupt) and SIGTERM while they are ``held``."""

    def __init__(self):
        self.came = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, a first signal is only noted in ``came``, a second raises KeyboardInterrupt.

        In another thread than the main one, where Python takes no signals, this does nothing; nor
        does it for a signal that the process ignores.
        """
        before = self._handlers()
        for number in before:
            signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handlers(self) -> dict[int, object]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        found = {number: signal.getsignal(number) for number in ASKS_FOR_AN_END}
        return {number: handler for number, handler in found.items()
                if handler not in (None, signal.SIG_IGN)}

    def _note(self, number, frame) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True
