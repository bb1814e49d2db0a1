"""The process's own memory."""

import ctypes


def give_back_memory() -> None:
    """Has the C library return what was freed to the system; where it can't, nothing happens.

    Loading a model leaves holes of hundreds of MB between what stays, and glibc keeps them otherwise.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
