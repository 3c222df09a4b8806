"""Host memory of a process that runs for days: what Python and JAX cannot do about it."""

import ctypes
import platform

M_ARENA_MAX = -8  # malloc.h of glibc


def limit_arenas(count: int = 2) -> None:
    """Lets glibc's malloc keep at most `count` arenas; does nothing on other systems. Call it before threads start.

    By default every thread may get an arena of its own, and memory freed in one is not used by another. With a thread that
    decodes video beside XLA's own, resident memory then creeps up for hours although nothing leaks: over 20 minutes of
    video 812 to 965 MiB, against 719 to 722 MiB with two arenas (benchmarks/soak.py).
    """
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, count)
