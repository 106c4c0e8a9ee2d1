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
_kept: list[Callable[[], str]] = []
_told = False


class Stopped(BaseException):
    """This process was told to end. No ``Exception``, so that nothing on the way takes it for something to mend."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def on_stop(text: str | Callable[[], str]) -> Iterator[None]:
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


@contextmanager
def stop_signals() -> Iterator[None]:
    """Within the block the first signal raises :class:`Stopped` in the main thread; the second ends the process.

    A thread hears of signals as well, for the main thread does so only between two lines of Python.
    """
    hear, tell = os.pipe()
    os.set_blocking(tell, False)
    before: dict[int, Any] = {number: signal.signal(number, _stop) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=_end_after_all, args=(hear,), name="signals", daemon=True).start()
    stopped = False
    try:
        yield
    except Stopped:
        stopped = True  # the thread stays: what else runs as the process ends has the same few seconds
        raise
    finally:
        if not stopped:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(tell)


def end_with_parent(leader: Any) -> None:
    """End this process with another: on SIGTERM, or when ``leader`` (a pipe or a sentinel) has no one at its other end.

    Ctrl-C reaches every process of a terminal; the first of them ends the others.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with, args=(leader,), name="leader", daemon=True).start()


def end(stopped: Stopped) -> NoReturn:
    """Say what is kept and end the process.

    At once: threads of libraries that are still at work crash an interpreter that is taken down around them. What waits
    in the frames of the exception to be put in order, as generators do, is so before.
    """
    _say_stopped("\n".join(getattr(stopped, "__notes__", [])))
    stopped.__traceback__ = stopped.__context__ = stopped.__cause__ = None
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(stopped.exit_code)


def _stop(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, lambda *_: None)  # not SIG_IGN, of which the thread would not hear
    raise Stopped(number)


def _end_after_all(hear: int) -> None:
    """Wait for a signal, then for another or until time is up, and end the process."""
    first = os.read(hear, 1)
    if first:
        select.select([hear], [], [], GRACE_S)
        _say_stopped(_kept[0]() if _kept else "")
        os._exit(128 + first[0])
    os.close(hear)


def _say_stopped(text: str) -> None:
    """One line on stderr, once."""
    global _told
    if not _told:
        _told = True
        from genedml_cli import console

        console.stopped(f"Stopped. {text}".strip())


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _end_with(leader: Any) -> None:
    from multiprocessing.connection import wait

    wait([leader])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(WORKER_GRACE_S)
    os._exit(128 + signal.SIGTERM)
