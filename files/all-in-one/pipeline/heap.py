"""The allocator's settings for inference: each run frees its activations, and the next one asks for the same again."""

import ctypes
import functools
import gc

from pipeline.threads import available_threads

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT = 64 << 20  # bytes at the top of an arena that are not given back to the kernel
MAPPED = 32 << 20  # bytes from which an allocation is a mapping of its own, given back when freed; glibc takes no more


@functools.cache
def keep_freed_memory() -> bool:
    """Keep what a run freed for the next one, within bounds; False where the C library has no such settings.

    By default whatever is above 128 KB goes back to the kernel at once, and every page of it is faulted in and zeroed
    again on the next run: a third of the time of a text of 150 tokens. onnxruntime's own arena avoids that too, but
    keeps its largest extent for ever. Threads share arenas, or each would keep its own.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {M_MMAP_THRESHOLD: MAPPED, M_TRIM_THRESHOLD: KEPT, M_ARENA_MAX: available_threads()}
    return all([mallopt(name, value) == 1 for name, value in settings.items()])


def give_back() -> None:
    """Return to the kernel what is free: what loading needed once, or a model's memory that is not needed any more.

    Does nothing where it cannot be done.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
