"""Pictures of the cache."""

import matplotlib
import numpy as np
import pytest

from svlm_jax.cache.ring import Role
from svlm_jax.cache.window import WindowConfig
from svlm_jax.output.cache_figure import BACKGROUND, FREE, KINDS, cache_column, draw_cache, draw_second
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.synthetic.source import open_synthetic
from tests.checkpoints import tiny

matplotlib.use("agg")
import matplotlib.pyplot as plt

NAMES = list(KINDS)


@pytest.fixture(scope="module")
def stream():
    """A session behind six seconds with a window of three, and the column of every second."""
    session = StreamingVLM.from_pretrained(tiny()).stream(window=WindowConfig(vision=3, text=3, sink=4, tail=8), query=None)
    columns = []
    for _ in session.watch(open_synthetic("match?seed=1&minutes=0.1&scale=1")):
        columns.append(cache_column(session.state))
    return session, columns


def test_every_role_has_one_kind():
    assert sorted(role for roles, _ in KINDS.values() for role in roles) == sorted(Role)


def test_a_column_is_what_the_cache_holds(stream):
    session, columns = stream
    order, role = np.asarray(session.state.slots.order[0]), np.asarray(session.state.slots.role[0])
    live = (order >= 0).sum()
    assert len(columns) == 6 and (columns[-1][:live] != FREE).all() and (columns[-1][live:] == FREE).all()
    for index, (roles, _) in enumerate(KINDS.values()):
        assert (columns[-1] == index).sum() == np.isin(role[order >= 0], roles).sum()
    assert columns[-1][0] == NAMES.index("system prompt")
    pictures = [(column == NAMES.index("pictures")).sum() for column in columns]
    assert pictures[0] > 0 and pictures[2:] == [3 * pictures[0]] * 4


def test_the_drawing_has_a_colour_for_every_slot(stream):
    _, columns = stream
    figure, axes = plt.subplots()
    draw_cache(axes, columns)
    painted = axes.images[0].get_array()
    assert painted.shape == (len(columns[0]), len(columns), 3)
    for index, (_, colour) in enumerate([("free", BACKGROUND), *((name, of[1]) for name, of in KINDS.items())]):
        where = np.stack(columns, 1) + 1 == index
        np.testing.assert_allclose(painted[where], np.broadcast_to(matplotlib.colors.to_rgb(colour), (where.sum(), 3)))
    draw_second(axes, np.zeros((3, 4, 6), np.uint8), "3 s", "")
    assert axes.get_xlabel() == "…"
    plt.close(figure)
