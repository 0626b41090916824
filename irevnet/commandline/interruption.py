"""Ends a command that does not end after Ctrl-C or SIGTERM, whatever it is computing.

Python runs its signal handlers between two steps of the interpreter. A single matrix product or decomposition may delay
the next step for minutes, during which only another thread can act. That thread learns of a signal from the C handler,
at once, through `signal.set_wakeup_fd`, and ends the process after a grace period. As files are written under temporary
names, everything saved before is intact.
"""

import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

GRACE = 8.0
"""Seconds from a signal to the end of the process, which should end within 10."""

_ENDING = (signal.SIGINT, signal.SIGTERM)
_FINISHED, _SAVING = 0, 255  # no signals have these numbers

_to_watcher: socket.socket | None = None
"""Socket for signals and messages to the thread, while there is one."""


@contextmanager
def end_when_stuck() -> Iterator[None]:
    """Ends the process with exit code 1 if the block does not end within `GRACE` seconds of Ctrl-C or SIGTERM.

    A signal without a Python handler keeps its effect, such as SIGTERM, which ends the process at once. Does nothing
    within another such block, or outside the main thread, which alone gets signals.
    """
    global _to_watcher
    if _to_watcher is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    to_watcher, messages = socket.socketpair()
    with to_watcher, messages:
        to_watcher.setblocking(False)  # as set_wakeup_fd demands
        watcher = threading.Thread(target=_watch, args=(messages,), daemon=True)
        watcher.start()
        earlier = signal.set_wakeup_fd(to_watcher.fileno())
        try:
            _to_watcher = to_watcher
            yield
        finally:
            _to_watcher = None
            signal.set_wakeup_fd(earlier)
            to_watcher.send(bytes([_FINISHED]))
            watcher.join()


def allow_saving() -> None:
    """Cancels the end of the process, for work that has seen the signal and is about to save; another signal allows it
    `GRACE` more seconds."""
    if _to_watcher is not None:
        _to_watcher.send(bytes([_SAVING]))


def _watch(messages: socket.socket) -> None:
    deadline = math.inf
    while (left := deadline - time.monotonic()) > 0:
        messages.settimeout(None if left == math.inf else left)
        try:
            (message,) = messages.recv(1)
        except TimeoutError:
            continue
        if message == _FINISHED:
            return
        if message == _SAVING:
            deadline = math.inf
        elif message in _ENDING:
            deadline = min(deadline, time.monotonic() + GRACE)
    # In a thread of its own, which may wait for a lock of standard error or for its reader.
    writer = threading.Thread(target=_write_reason, daemon=True)
    writer.start()
    writer.join(1.0)
    os._exit(1)


def _write_reason() -> None:
    if os.isatty(2):
        os.write(2, b"\x1b[?25h\n")  # shows the cursor, which a progress bar hides, and leaves the line of the bar
    sys.stderr.write(
        f"Error: one long computation did not stop within {GRACE:g} s, and was ended. Everything saved before is kept; "
        "later work is lost\n"
    )
    sys.stderr.flush()


def _leave_to_parent() -> None:
    """Detaches a forked process from the shared socket, through which its signals would end the parent."""
    global _to_watcher
    if _to_watcher is not None:
        _to_watcher = None
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_leave_to_parent)
