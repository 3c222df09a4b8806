"""Saving and loading any pytree of arrays with Orbax: parameters, and the states of running streams.

What is written are nested dicts named after the paths of the tree, so that a file outlives changes of Python types.
"""

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from svlm_jax.errors import CheckpointError
from svlm_jax.host.files import system_error

Leaves = dict[tuple[str, ...], Any]


def save(folder: str | Path, tree: Any) -> None:
    """Writes `tree` into a new folder, which appears only when it is complete.

    CheckpointError when it exists, OSError when the disk refuses.
    """
    folder = Path(folder).expanduser().absolute()
    if folder.exists():
        raise CheckpointError(f"{folder} already exists; name a folder that does not.")
    try:
        ocp().save(folder, _nested(_filled(_leaves(tree))))
    except Exception as error:  # of several kinds, and pages long
        if (refused := system_error(error)) is None:
            raise
        raise refused from error


def load(folder: str | Path, abstract: Any) -> Any:
    """The tree that was saved, in the structure, dtypes and shardings of `abstract`, a tree of `jax.ShapeDtypeStruct`.

    Floating-point leaves may change their width; anything else that differs in name, shape or kind is a CheckpointError
    that names it.
    """
    folder = Path(folder).expanduser().absolute()
    v1 = ocp()
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder, expected one that Orbax has written.")
    try:
        stored = _leaves(v1.metadata(folder).metadata)
    except Exception as error:  # of any kind: it depends on where the damage is
        raise CheckpointError(f"{folder} was not written by Orbax, or is damaged or incomplete.") from error
    every = _leaves(abstract)
    wanted = _filled(every)
    _compare(folder, stored, wanted)
    try:
        loaded = _leaves(v1.load(folder, _nested(wanted)))
    except Exception as error:
        raise CheckpointError(f"{folder} is damaged: its arrays cannot be read.") from error
    empty = {path: jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in every.items() if path not in wanted}
    return jax.tree.unflatten(jax.tree.structure(abstract), [(loaded | empty)[path] for path in every])


def named(tree: Any) -> dict[str, Any]:
    """Nested dicts named after the paths of `tree`: how it is written."""
    return _nested(_leaves(tree))


def paths(tree: Any) -> set[str]:
    """The paths of the leaves of a tree, each with dots between its names."""
    return {".".join(path) for path in _leaves(tree)}


def like(abstract: Any, stored: dict[str, Any]) -> Any:
    """The tree whose `named` is `stored`, in the structure of `abstract`."""
    leaves = _leaves(stored)
    return jax.tree.unflatten(jax.tree.structure(abstract), [leaves[path] for path in _leaves(abstract)])


def ocp() -> ModuleType:
    """Version 1 of Orbax's interface; importing it takes a second, and it still moves between packages."""
    try:
        from orbax.checkpoint import v1
    except ImportError:
        from orbax.checkpoint.experimental import v1
    return v1


def _leaves(tree: Any) -> Leaves:
    return {tuple(_name(key) for key in path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _filled(leaves: Leaves) -> Leaves:
    """Those that hold numbers: Orbax refuses arrays without any."""
    return {path: leaf for path, leaf in leaves.items() if 0 not in jnp.shape(leaf)}


def _name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _nested(leaves: Leaves) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = leaf
    return tree


def _compare(folder: Path, stored: Leaves, wanted: Leaves) -> None:
    def differs(path: tuple[str, ...]) -> bool:
        there, here = stored[path], wanted[path]
        floats = jnp.issubdtype(there.dtype, jnp.floating) and jnp.issubdtype(here.dtype, jnp.floating)
        return tuple(there.shape) != tuple(here.shape) or not (floats or there.dtype == here.dtype)

    complaints = {
        "lacks": [".".join(path) for path in wanted if path not in stored],
        "has unknown": [".".join(path) for path in stored if path not in wanted],
        "has mis-shaped": [
            f"{'.'.join(path)} {_kind(stored[path])} instead of {_kind(wanted[path])}"
            for path in wanted
            if path in stored and differs(path)
        ],
    }
    found = [f"{verb} {_few(names)}" for verb, names in complaints.items() if names]
    if found:
        raise CheckpointError(f"{folder} does not hold what is asked for: it {'; it '.join(found)}.")


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return f"{len(names)} arrays: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
