"""Breaking any one rule on purpose is noticed by a recording or a trace; nothing broken is not.

Rules of eviction are broken in the traces (no model, one small program each), all others in the recording that is known to
depend on them.
"""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import golden_replay
from svlm_jax.cache import positions, ring, window
from svlm_jax.cache.ring import Role
from svlm_jax.engine import commentate as step
from svlm_jax.models.qwen2_vl import tower as vision
from svlm_jax.prompt import commentary as prompt
from tests.cache import traces
from tests.engine.test_golden import GOLDEN, model

# ------------------------------------------------------------------------------------------- rules of eviction


def changed_limits(**change):
    def evict(slots, limits, *rest):
        limits = dataclasses.replace(limits, **{name: f(getattr(limits, name)) for name, f in change.items()})
        return window.evict(slots, limits, *rest)

    return {"evict": evict}


def words_dropped(slots, limits, *rest):
    old = (slots.role == Role.PREV_WORDS) & (slots.order >= 0)
    after = window.evict(slots, limits, *rest)
    dropped = (after.role == Role.PREV_WORDS) & ~old
    return dataclasses.replace(after, order=window.renumber(after.role, jnp.where(dropped, -1, after.order)))


def moved_to_the_front(slots, limits, *rest):
    old = (slots.role == Role.PREV_WORDS) & (slots.order >= 0)
    after = window.evict(slots, limits, *rest)
    moved = (after.role == Role.PREV_WORDS) & ~old & (after.order >= 0)
    order = jnp.where(after.order >= 0, 2 * after.order + 2000 * ~moved, -1)
    order = jnp.where((after.role < Role.PREV_WORDS) & (after.order >= 0), after.order, order)
    return dataclasses.replace(after, order=jnp.where(after.order >= 0, _ranks(order), -1))


def _ranks(order):
    return jnp.argsort(jnp.argsort(jnp.where(order >= 0, order, 10**6)))


def label_stays(slots, limits, *rest):
    after = window.evict(slots, limits, *rest)
    kept = (slots.role == Role.LABEL) & (slots.order >= 0) & (after.order < 0) & (slots.chunk_index > rest[0] - limits.vision)
    order = jnp.where(kept | (after.order >= 0), slots.order, -1)
    return dataclasses.replace(after, order=window.renumber(after.role, order))


def without_pending(index):
    def pending(*arguments):
        new = window.pending(*arguments)
        return dataclasses.replace(new, valid=new.valid.at[index].set(False))

    return {"pending": pending}


EVICTION = {
    "marker one token shorter": changed_limits(published_marker_cut=lambda n: n - 1),
    "tail keeps one word more": changed_limits(tail=lambda n: n + 1),
    "sink keeps one word less": changed_limits(sink=lambda n: n - 1),
    "vision leaves a round later": changed_limits(vision=lambda n: n + 1),
    "text leaves a round later": changed_limits(text=lambda n: n + 1),
    "words dropped, not moved": {"evict": words_dropped},
    "moved words go to the front of the previous text": {"evict": moved_to_the_front},
    "label stays when vision is longer": {"evict": label_stays},
    "last token of a capped reply forgotten": without_pending(0),
    "im_end of a reply forgotten": without_pending(1),
}


def replay_traces(**broken) -> int:
    """How many traces differ when rules are replaced."""
    rules = types.SimpleNamespace(**{"evict": window.evict, "pending": window.pending, **broken})
    programs = traces.make_programs(traces.builder().turn_ids(), rules)
    runs = [run for run in traces.load() if run["sink"] is not None and (run["V"] > run["T"] or run["sink"] > 0)][:8]
    return sum(bool(traces.replay(run, programs)) for run in runs)


def test_traces_agree_when_nothing_is_broken():
    assert replay_traces() == 0


@pytest.mark.parametrize("rule", EVICTION)
def test_broken_eviction_is_noticed(rule):
    assert replay_traces(**EVICTION[rule]) > 0


# ------------------------------------------------------------------------------------------- rules that need the model

ORIGINAL = types.SimpleNamespace(
    kept_positions=positions.kept_positions, workspace=step._workspace, run=step._run, pending=window.pending,
    vision_block=prompt.vision_block, layout=vision.layout,
)  # fmt: skip


def native_positions(slots, limits, native_next):
    return ORIGINAL.kept_positions(slots, dataclasses.replace(limits, native=jnp.bool_(True)), native_next)


def stale_workspace(module, pool, rows, lanes):
    cache, begin = ORIGINAL.workspace(module, pool, rows, lanes)
    return dataclasses.replace(cache, rotated=module.rotate(pool.keys, rows.slots.native)), begin


def free_slots_visible(module, config, slots, cache, new, x, slot, position, deepstack=()):
    after, order = jax.vmap(ring.append)(slots, slot, new, position)
    hidden, cache = module.decode(x, position, cache, slot, order, jnp.maximum(after.order, 0))
    return after, cache, hidden


def causal_by_slot(module, config, slots, cache, new, x, slot, position, deepstack=()):
    after, order = jax.vmap(ring.append)(slots, slot, new, position)
    by_slot = jnp.where(after.order >= 0, jnp.arange(after.order.shape[1]), -1)
    hidden, cache = module.decode(x, position, cache, slot, jnp.where(order >= 0, slot, -1), by_slot)
    return after, cache, hidden


def newline_forgotten(*arguments):
    new = ORIGINAL.pending(*arguments)
    return dataclasses.replace(new, valid=new.valid.at[2].set(False))


def nothing_said_before(slots, vocab):
    return jnp.zeros(vocab, bool)


def block_spans_rows(grid, time_step):
    pos_offset, pos_step = ORIGINAL.vision_block(grid, time_step)
    return pos_offset, np.where(pos_step > 0, grid[1], 0).astype(np.float32)


def doubled_time_step(grid, time_step):
    return ORIGINAL.vision_block(grid, 2 * time_step)


def grids_see_each_other(grid, cfg):
    place = ORIGINAL.layout(grid, cfg)
    return dataclasses.replace(place, grids=(sum(place.grids),))


def windows_ignored(grid, cfg):
    place = ORIGINAL.layout(grid, cfg)
    return dataclasses.replace(place, windows=place.grids)


# rule: (the recording that notices it, module, name, replacement)
MODEL = {
    "positions never renumbered": ("a_default", positions, "kept_positions", native_positions),
    "keys not re-rotated": ("a_default", step, "_workspace", stale_workspace),
    "evicted slots still visible": ("a_default", step, "_run", free_slots_visible),
    "causal by slot, not by order": ("a_default", step, "_run", causal_by_slot),
    "newline after im_end forgotten": ("a_default", window, "pending", newline_forgotten),
    "penalty sees only this second": ("h_repetition", step, "retained_ids", nothing_said_before),
    "vision block spans rows, not the longest axis": ("a_default", prompt, "vision_block", block_spans_rows),
    "time step of grids doubled": ("i_eight_fps", prompt, "vision_block", doubled_time_step),
    "full vision blocks look across temporal grids": ("i_eight_fps", vision, "layout", grids_see_each_other),
    "vision windows ignored": ("a_default", vision, "layout", windows_ignored),
}
PROGRAMS = step.step, step.ingest_step


@pytest.fixture
def retraced():
    """Programs are traced anew with what a test replaced, and not used afterwards."""
    for program in PROGRAMS:
        program.clear_cache()
    yield
    for program in PROGRAMS:
        program.clear_cache()


@pytest.mark.parametrize("rule", MODEL)
def test_broken_rule_is_noticed(rule, monkeypatch, retraced):
    case, module, name, replacement = MODEL[rule]
    monkeypatch.setattr(module, name, replacement)
    row = golden_replay.replay(model("streamingvlm"), GOLDEN / "streamingvlm", case, chunks=7)
    assert row.wrong_tokens > 0, f"{case} did not notice: {rule}"
