"""Where compiled programs are kept between runs."""

import os

import jax


def keep_compiled() -> None:
    """Programs for GPUs and TPUs are kept between runs: a 7B second takes half a minute to compile.

    JAX_COMPILATION_CACHE_DIR names another place. Not for CPUs, whose programs do not fit another machine's processor.
    """
    if jax.default_backend() != "cpu" and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "svlm-jax", "compiled"))
