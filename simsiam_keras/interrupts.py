"""Signals: acknowledged at once, obeyed where a run can go on from, ended with by a second one."""

import contextlib
import os
import signal
import socket
import threading

from simsiam_keras.errors import RunFailed

NUMBERS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
FAILED_BY_SIGNAL = 128  # shells add the signal's number

_waiting = None  # the signal that came while one was held back
_received = None  # the signal that came at all
_held = False


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end.

    Args:
        number: of the signal.
        outlook: what the same command would do now, in words, where that is known.
    """

    def __init__(self, number, outlook=""):
        super().__init__(outlook)
        self.number, self.outlook = number, outlook

    @property
    def code(self):
        """The exit code."""
        return FAILED_BY_SIGNAL + self.number


@contextlib.contextmanager
def heeded():
    """Within, SIGINT, SIGTERM and SIGHUP raise `Interrupted`, or wait where they are held back.

    A thread says so at once, also while the main one computes, and ends the process at the second
    signal. What is ignored, as under nohup, stays ignored. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _waiting, _received
    _waiting = _received = None
    release()
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    told = os.dup(2)  # where standard error leads now: it is turned away while libraries load
    threading.Thread(target=_listen, args=(ear, told), daemon=True).start()
    heard = [n for n in NUMBERS if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, _on_signal) for number in heard}
    wakeup = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    try:
        with unmistaken():
            yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        mouth.close()  # which ends the thread
        release()


@contextlib.contextmanager
def unmistaken():
    """Within, whatever `Interrupted` has become on its way is one again.

    A library that a signal breaks into may raise an error of its own in its place.
    """
    try:
        yield
    except RunFailed:
        raise
    except Exception as error:
        if _received is None:
            raise
        raise Interrupted(_received) from error


def hold():
    """From here to `release`, signals wait for `check`."""
    global _held
    _held = True


def check():
    """Raises `Interrupted` where a signal is waiting."""
    global _waiting
    if _waiting is not None:
        number, _waiting = _waiting, None
        raise Interrupted(number)


def release():
    """Ends `hold`; what was waiting is left to `check`."""
    global _held
    _held = False


def _on_signal(number, frame):
    global _waiting, _received
    _waiting = _received = number
    if not _held:
        check()


def _listen(ear, told):
    # Not by way of sys.stderr: its lock may be held by the thread that computes.
    def say(sentence):
        with contextlib.suppress(OSError):
            os.write(told, f"\nsimsiam_keras: {sentence}\n".encode())

    first = True
    with ear:
        while received := ear.recv(16):
            for number in received:
                if number not in NUMBERS:
                    continue
                name = signal.Signals(number).name
                if not first:
                    say(f"second {name}, ended at once")
                    os._exit(FAILED_BY_SIGNAL + number)
                step = " after this step" if _held else ""
                say(f"{name} received, stopping{step}; a second one ends at once")
                first = False
    os.close(told)
