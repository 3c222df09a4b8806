"""Every test runs on the CPU, seen by JAX as eight devices, and without the network (loopback apart)."""

import os

# Before jax is imported anywhere: it reads these once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
