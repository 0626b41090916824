"""Ends a command that Ctrl-C or SIGTERM has asked to end and that does not, whatever it is busy with.

Python runs its signal handlers between two steps of the interpreter. One product or decomposition may keep it from the
next step for minutes; meanwhile only another thread can act. It learns of a signal from the C handler, at once, through
`signal.set_wakeup_fd`, and ends the process when the command has had its time. As files are written under temporary
names, what was saved before is whole.
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
"""Seconds from a signal to the end of the process: it is to be gone within 10."""

_ENDING = (signal.SIGINT, signal.SIGTERM)
_FINISHED, _SAVING = 0, 255  # which are the numbers of no signals

_to_watcher: socket.socket | None = None
"""Where signals and messages to the thread go in, while there is one."""


@contextmanager
def end_when_stuck() -> Iterator[None]:
    """Within it, a process that does not leave it within `GRACE` seconds of Ctrl-C or SIGTERM ends with exit code 1.

    A signal that has no handler in Python keeps its effect, such as that of SIGTERM, to end the process at once. Inside
    another one, or in another thread than the main one, which gets no signals, it does nothing.
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
    """What was busy has seen the signal and is about to save, however long that takes; another signal gives it
    `GRACE` seconds anew."""
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
    # In a thread of its own: whoever holds a lock of standard error, or has stopped reading it, is not waited for.
    speaker = threading.Thread(target=_say_why, daemon=True)
    speaker.start()
    speaker.join(1.0)
    os._exit(1)


def _say_why() -> None:
    if os.isatty(2):
        os.write(2, b"\x1b[?25h\n")  # shows the cursor, which a progress bar hides, and leaves the line of the bar
    sys.stderr.write(
        f"Error: still busy with one long computation {GRACE:g} s after it was to stop; ended without waiting for it. "
        "What had been saved is kept, what came after is lost\n"
    )
    sys.stderr.flush()


def _leave_to_parent() -> None:
    """A forked process shares the socket: its own signals would end its parent."""
    global _to_watcher
    if _to_watcher is not None:
        _to_watcher = None
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_leave_to_parent)
