"""Which packages are installed: all else about the project is in pyproject.toml, which cannot say this.

configs/ and launch/ stand at the top of the repository, where people look for them, and are installed as parts of svlm_jax, so
that they take no names of their own from anybody's environment.
"""

from setuptools import find_packages, setup

INSIDE = {"svlm_jax.configs": "configs", "svlm_jax.launch": "launch"}

setup(
    packages=[*find_packages(include=["svlm_jax*", "pallas_kernels*"]), *INSIDE],
    package_dir=INSIDE,
)
