"""A worker process ends when its parent does, whatever it is in the middle of."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent(parent: int, descriptor: int) -> None:
    """Have this process killed as soon as `parent`, its id, is gone.

    Linux does it itself, at once, even while a C library holds Python's lock. Elsewhere a thread waits for
    the other end of `descriptor`, a socket to the parent, to close.
    """
    if not _killed_by_the_kernel():
        threading.Thread(target=_wait_for_the_end, args=(descriptor,), daemon=True).start()
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _killed_by_the_kernel() -> bool:
    if sys.platform != "linux":
        return False
    prctl = ctypes.CDLL(None).prctl
    return bool(prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0) == 0)


def _wait_for_the_end(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # POLLHUP is told unasked
    while not any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll()):
        pass
    os._exit(1)
