"""Pictures of a stream: what its cache holds, second by second, and what the model saw and said. Needs matplotlib.

columns = []
for chunk in source:
    caption = session.feed(chunk)
    columns.append(cache_column(session.state))
draw_cache(axes, columns)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int8, UInt8

from svlm_jax.cache.ring import Role
from svlm_jax.engine.state import StreamState

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FREE = -1
# What slots are coloured by, in the order in which a conversation begins with them.
KINDS: dict[str, tuple[tuple[Role, ...], str]] = {
    "system prompt": ((Role.SYSTEM,), "#555555"),
    "earlier words": ((Role.PREV_OPEN, Role.PREV_WORDS, Role.PREV_CLOSE), "#d1495b"),
    "pictures": ((Role.PATCH,), "#30638e"),
    "words of the window": ((Role.ASST_WORDS,), "#edae49"),
    "time labels and marks": (
        (Role.USER_OPEN, Role.LABEL, Role.MARK, Role.QUERY, Role.USER_CLOSE, Role.ASST_OPEN, Role.ASST_CLOSE),
        "#9db4c0",
    ),
}
BACKGROUND = "#f4f4f0"


def cache_column(state: StreamState, stream: int = 0) -> Int8[np.ndarray, "C"]:
    """The kind of token in every slot of a stream, in logical order: an index into KINDS, free slots (FREE) at the end."""
    order, role = np.asarray(state.slots.order[stream]), np.asarray(state.slots.role[stream])
    kind = np.full(len(Role), FREE, np.int8)
    for index, (roles, _) in enumerate(KINDS.values()):
        kind[list(roles)] = index
    live = np.flatnonzero(order >= 0)
    column = np.full(len(order), FREE, np.int8)
    column[order[live]] = kind[role[live]]
    return column


def draw_cache(axes: "Axes", columns: Sequence[Int8[np.ndarray, "C"]]) -> None:
    """Slots (upwards, in logical order) against seconds (one column each)."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    colours = [BACKGROUND, *(colour for _, colour in KINDS.values())]
    image = np.stack(columns, 1) + 1
    extent = (0, len(columns), 0, len(columns[0]))
    painted = np.asarray([to_rgb(colour) for colour in colours])[image]
    axes.imshow(painted, aspect="auto", origin="lower", extent=extent, interpolation="nearest")
    axes.set_ylim(0, min(1.2 * (image > 0).sum(0).max(), len(image)))  # what is never used is cut off
    axes.set_xlabel("seconds of the stream")
    axes.set_ylabel("slots of the cache, in order")
    patches = [Patch(color=colour, label=name) for name, (_, colour) in KINDS.items()]
    axes.legend(handles=patches, loc="upper left", fontsize="small", framealpha=0.9)


def draw_second(axes: "Axes", frame: UInt8[np.ndarray, "3 height width"], title: str, text: str) -> None:
    """A picture with its time above and what was said below."""
    axes.imshow(np.moveaxis(frame, 0, -1))
    axes.set_title(title, fontsize="small", loc="left")
    axes.set_xlabel(text or "…", fontsize="small")
    axes.set_xticks([])
    axes.set_yticks([])
