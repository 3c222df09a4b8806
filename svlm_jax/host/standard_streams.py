"""Standard output and error that are closed, full, or read by nobody: the right exit code, and no file in their place."""

import contextlib
import errno
import os
import sys

READER_GONE = 141  # as a shell says SIGPIPE: whoever read our output has left (`svlm watch ... | head`)


def open_closed_streams() -> None:
    """Takes the numbers 0 to 2, where they are closed, so that no file that is opened later gets them and what is printed.

    What is written to a closed output fails as it does on any system ("Bad file descriptor"); a closed error stream is silent.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is given out: this one.
            os.open(os.devnull, os.O_RDONLY if number < 2 else os.O_WRONLY)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115


def say(text: str) -> None:
    """Writes to standard error; when nobody can hear it, that is no reason for another exit code."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def finish_output() -> OSError | None:
    """Hands over what is still held back; what goes wrong, if it does. Nothing more is said about it when the program ends."""
    failure = None
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            stream.flush()
        except OSError as error:
            failure = error if name == "stdout" else failure
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes again at its end
        except ValueError:
            pass  # a stream that a test has closed
    return failure


def is_reader_gone(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, is that of a pipe without a reader."""
    passed: list[BaseException] = []
    while error is not None and error not in passed:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            return True
        passed.append(error)
        error = error.__cause__ or error.__context__
    return False


def is_standard_output(error: BaseException) -> bool:
    """Whether an error of the system names no file: the program opens all its files by name, and its output it does not."""
    return isinstance(error, OSError) and error.filename is None and error.errno in (errno.EBADF, errno.ENOSPC, errno.EIO)
