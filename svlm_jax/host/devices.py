"""How much memory there is."""

import os

import jax


def host_memory() -> int | None:
    """Bytes of main memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def device_memory(device: jax.Device) -> int | None:
    """Bytes that JAX may use on a device; a CPU device shares the host's memory."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return host_memory() if device.platform == "cpu" else None
