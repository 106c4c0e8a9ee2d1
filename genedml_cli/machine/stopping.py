"""Ctrl-C and SIGTERM: the end comes within seconds, in order, with one sentence on what is kept and how to go on."""

import gc
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 5.0
"""After which a process ends that could not in order: in a long call of a library, say. A second signal ends it too."""
WORKER_GRACE_S = 3.0
AGAIN_S = 0.05
_kept: list[Callable[[], str]] = []
_at_end: list[Callable[[], None]] = []
_told = False


class Stopped(BaseException):
    """This process was told to end. No ``Exception``, so that nothing on the way takes it for something to fix."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = _exit_code(number)


@contextmanager
def keeping(text: str | Callable[[], str]) -> Iterator[None]:
    """Say ``text``, or what it then returns, where the process is told to end in the block; of many, the outermost."""
    say = text if callable(text) else lambda: text
    _kept.append(say)
    try:
        yield
    except Stopped as stopped:
        stopped.__notes__ = [say()]
        raise
    finally:
        _kept.remove(say)


def at_end(call: Callable[[], None]) -> None:
    """Make ``call`` as the process is ended by a signal."""
    _at_end.append(call)


@contextmanager
def orderly() -> Iterator[None]:
    """Within the block the signals raise :class:`Stopped` in the main thread.

    A thread is told as well, for the main thread hears of a signal only between two lines of Python.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    before: dict[int, Any] = {number: signal.signal(number, _stop) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    sys.unraisablehook = _raise_again
    threading.Thread(target=_end_after_all, args=(told,), name="signals", daemon=True).start()
    try:
        yield
    except Stopped:
        raise  # the thread stays: what else runs as the process ends has the same few seconds
    except BaseException:
        _as_before(before, wakeup, tell)
        raise
    else:
        _as_before(before, wakeup, tell)


def follow(leader: Any) -> None:
    """End this process with another: on SIGTERM, or when ``leader`` (a pipe or a sentinel) has no one at its other end.

    Ctrl-C reaches every process of a terminal; the first of them ends the others.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    sys.unraisablehook = _raise_again
    threading.Thread(target=_end_with, args=(leader,), name="leader", daemon=True).start()


def say_stopped(text: str) -> None:
    """One line on stderr, once."""
    global _told
    if not _told:
        _told = True
        from genedml_cli import console

        console.stopped(f"Stopped. {text}".strip())


def end(stopped: Stopped) -> NoReturn:
    """Say what is kept and end the process.

    At once: threads of libraries that are still at work crash an interpreter that is taken down around them. What waits
    in the frames of the exception to be put in order, as generators do, is so before.
    """
    say_stopped("\n".join(getattr(stopped, "__notes__", [])))
    stopped.__traceback__ = stopped.__context__ = stopped.__cause__ = None
    gc.collect()
    for call in _at_end:
        with suppress(OSError):
            call()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(stopped.exit_code)


def _stop(number: int, frame: FrameType | None) -> None:
    for one in (*SIGNALS, signal.SIGALRM):
        signal.signal(one, _ignore)  # the thread hears it still
    raise Stopped(number)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN, which the thread would not hear."""


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(_exit_code(signal.SIGTERM))


def _end_after_all(told: int) -> None:
    number = _next_signal(told, None)
    if number is None:
        return
    if _next_signal(told, GRACE_S) is None:
        return
    say_stopped(_kept[0]() if _kept else "")
    os._exit(_exit_code(number))


def _next_signal(told: int, grace_s: float | None) -> int | None:
    """The next of the signals that end a process, or the last sign where time is up; None where the block is left."""
    until = None if grace_s is None else time.monotonic() + grace_s
    while True:
        left = None if until is None else max(0.0, until - time.monotonic())
        if not select.select([told], [], [], left)[0]:
            return 0
        heard = os.read(told, 1)
        if not heard:
            os.close(told)
            return None
        if heard[0] in SIGNALS:
            return heard[0]


def _raise_again(unraisable: Any) -> None:
    """Where Python called a function of its own and lets no exception out of it, end a moment later."""
    ended = unraisable.exc_value
    if isinstance(ended, Stopped):
        number = ended.exit_code - _exit_code(0)
        signal.signal(signal.SIGALRM, lambda _, frame: _stop(number, frame))
    elif isinstance(ended, SystemExit):
        signal.signal(signal.SIGALRM, _leave)
    else:
        sys.__unraisablehook__(unraisable)
        return
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S)


def _end_with(leader: Any) -> None:
    from multiprocessing.connection import wait

    wait([leader])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(WORKER_GRACE_S)
    os._exit(_exit_code(signal.SIGTERM))


def _as_before(handlers: dict[int, Any], wakeup: int, tell: int) -> None:
    signal.set_wakeup_fd(wakeup)
    sys.unraisablehook = sys.__unraisablehook__
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.close(tell)


def _exit_code(number: int) -> int:
    return 128 + number
