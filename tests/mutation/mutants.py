"""Breaks by hand, each with the tests that must see it: cache, positions, sampling, bytes, loss, sharding, questions."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One break.

    Attributes:
      file: relative to the repository. old: text that stands there exactly once. new: what takes its place.
      tests: files, or tests, of which at least one must fail.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _all(file: str, tests: str, *pairs: tuple[str, str]) -> tuple[Mutant, ...]:
    return tuple(Mutant(file, old, new, tuple(tests.split())) for old, new in pairs)


MUTANTS: tuple[Mutant, ...] = (
    *_all(
        "svlm_jax/cache/window.py",
        "tests/cache/test_ring.py tests/cache/test_traces.py",
        ("gone |= (v > t) & user", "gone |= (v < t) & user"),
        ("gone |= (v < t) & user", "gone |= (v > t) & user"),
        ("((role == Role.PATCH) | (role == Role.MARK))", "(role == Role.PATCH)"),
        ("chunk_index - jnp.maximum(v, t)", "chunk_index - jnp.minimum(v, t)"),
        ("rank >= window.sink", "rank > window.sink"),
        ("rank <= n_all - window.tail", "rank < n_all - window.tail"),
        ("n_all - window.tail) & (chunk_index > 0)", "n_all - window.tail)"),
        ("moved, n_old + index", "moved, index"),
        ("Role.ASST_OPEN) & (chunk == chunk_index - t)", "Role.ASST_OPEN) & (chunk == chunk_index - t + 1)"),
        ("jnp.where(moved, Role.PREV_WORDS, role)", "jnp.where(moved, Role.PREV_CLOSE, role)"),
        ("(t == 1) & (last != turns.im_end)", "(t == 1) & (last == turns.im_end)"),
        ("jnp.where(ends, length, stopped)", "jnp.where(ends, length, 0)"),
        ("part * (count + 1) + order", "order"),
        ("(chunk_index > 0) & (window.text > 1)", "chunk_index > 0"),
        ("capped = last != turns.im_end", "capped = last == turns.im_end"),
    ),
    *_all(
        "svlm_jax/cache/window.py",
        "tests/cache/test_window.py",
        ("seconds / chunk_seconds - 1e-6", "seconds / chunk_seconds"),
        ("4 + words + 2", "4 + words"),
        ("(3 + 2) * max(v, t)", "(3 + 2) * min(v, t)"),
        ("lengths.label * t", "lengths.label * max(v, t)"),
        ("(3 + lengths.reply + 2) - 3", "(3 + lengths.reply + 2)"),
        ("-sum(slots.values()) % 8", "0"),
        ("max(window.tail or 0, 1) - 1)", "max(window.tail or 0, 1))"),
    ),
    *_all(
        "svlm_jax/cache/ring.py",
        "tests/cache/test_ring.py tests/cache/test_traces.py",
        ("slots.order[patches:] < 0", "slots.order[patches:] <= 0"),
        ("* shape.block + new.patch", "+ new.patch"),
        ("free.sum() - text.sum() - extra", "free.sum() - text.sum()"),
        ("(text.sum(),), (extra,)", "(0,), (extra,)"),
        ("pool[jnp.cumsum(text) - 1]", "pool[jnp.cumsum(text)]"),
        ("jnp.cumsum(new.valid) - 1, -1", "jnp.cumsum(new.valid), -1"),
    ),
    *_all(
        "svlm_jax/cache/positions.py",
        "tests/cache/test_ring.py tests/cache/test_traces.py",
        ("pos_offset.max() + 1", "pos_offset.max()"),
        ("start = (jnp.cumsum(moves) - moves)", "start = jnp.cumsum(moves)"),
        ("jnp.where(window.native, slots.native, start + slots.pos_offset)", "start + slots.pos_offset"),
        ("jnp.where(window.native, native_next, moves.sum())", "moves.sum()"),
        ("jnp.where(new.valid, new.pos_step, 0.0)", "new.pos_step"),
        ("jnp.cumsum(moves) - moves + new.pos_offset", "jnp.cumsum(moves) - moves"),
    ),
    *_all(
        "svlm_jax/cache/vsb.py",
        "tests/cache/test_vsb.py",
        ("position = place + 1", "position = place"),
        ("quotient - (rest == 0)", "quotient"),
        ("(rank < top) | (within < capacity)", "within < capacity"),
        ("within < capacity", "within <= capacity"),
        ("candidate, -score, jnp.inf", "candidate, score, jnp.inf"),
        ("index >= count - tokens", "index > count - tokens"),
        ("(place, length - short) if", "(place, length) if"),
        ("budget=budget - short", "budget=budget"),
        ("else (index, count - short)", "else (place, length - short)"),
    ),
    *_all(
        "svlm_jax/cache/pages.py",
        "tests/cache/test_pages.py",
        ("jnp.maximum(live.sum(3), 1)", "page"),
        ("share * pages - 1e-9", "share * pages"),
        ("held = -(-count // page)", "held = count // page"),
        ("jnp.maximum(asked.sum(-1, keepdims=True), 1)", "asked.shape[1]"),
        ("best, pages), axis=1)", "best, pages), axis=0)"),
    ),
    *_all(
        "svlm_jax/cache/memory_state.py",
        "tests/cache/test_memory_state.py",
        ("jnp.floor(inside_block(", "(inside_block("),
        ("axis=(1, 2)) + 1", "axis=(1, 2))"),
        ("newest > before", "newest >= before"),
        ("place=seen + jnp.arange(shape.clip)", "place=jnp.arange(shape.clip)"),
    ),
    *_all(
        "svlm_jax/cache/policies/base.py",
        "tests/cache/test_memory_state.py tests/cache/test_policies.py",
        ("if self.budget < grids * cells", "if self.budget <= grids * cells"),
        ("math.ceil(self.recent_frames / (self.clip_frames / grids)) * cells", "self.recent_frames * cells"),
    ),
    *_all(
        "svlm_jax/cache/policies/window.py",
        "tests/cache/test_memory_state.py tests/cache/test_policies.py",
        ("self.window + shape.seconds / 2", "self.window - shape.seconds / 2"),
    ),
    *_all(
        "svlm_jax/cache/policies/vsb.py",
        "tests/cache/test_memory_state.py tests/cache/test_policies.py",
        ("(1 - self.scatter) * (shape", "self.scatter * (shape"),
    ),
    *_all(
        "svlm_jax/cache/kv.py",
        "tests/cli/test_doctor.py::test_streams_share_the_weights_only tests/cache/test_kv.py",
        ("copies * self.num_layers * slots", "copies * slots"),
    ),
    *_all(
        "pallas_kernels/slots.py",
        "tests/cache/test_kv.py",
        ('cache.at[index].set(new, mode="drop")', 'cache.at[index].set(new, mode="clip")'),
        ("slots[:, :, None]\n", "slots[:, :, None] + 1\n"),
    ),
    *_all(
        "svlm_jax/cache/frame_filter.py",
        "tests/cache/test_frame_filter.py",
        ("jnp.where(kept[:, None], mean, reference), kept", "mean, kept"),
        ("(jnp.abs(reference).sum(-1) == 0)", "False"),
    ),
    *_all(
        "svlm_jax/engine/sampling.py",
        "tests/engine/test_sampling.py",
        ("logits < 0, logits * factor", "logits > 0, logits * factor"),
        ("logits / jnp.where(limits.temperature", "logits * jnp.where(limits.temperature"),
        ("jnp.arange(count) < k,", "jnp.arange(count) <= k,"),
        ("jnp.cumsum(probability) - probability", "jnp.cumsum(probability)"),
        ("set(-jnp.inf)", "set(0.0)"),
        ("set(False)", "set(True)"),
    ),
    *_all(
        "svlm_jax/train/loss.py",
        "tests/train/test_loss.py",
        ("labels[:, 1:]", "labels[:, :-1]"),
        ("(log_sum - picked) * weight", "log_sum - picked"),
        ("is_target) * weight[:, None]", "is_target)"),
        ("(guess == target) * weight", "(guess == target)"),
        ("-(-jnp.sum(weights != 0) // chunk)", "jnp.sum(weights != 0) // chunk"),
        ("gradient * cotangent[0].astype(gradient.dtype)", "gradient"),
        ("(i * chunk, 0)", "(0, 0)"),
    ),
    *_all(
        "svlm_jax/sharding.py",
        "tests/test_sharding.py",
        ("axis is not None and size % mesh.shape[axis]", "axis is not None and size < mesh.shape[axis]"),
        ('"mlp": "tensor"', '"mlp": None'),
        ('None if axis == "fsdp" else axis', "axis"),
        ("(layer, inputs, None) if", "(layer, None, inputs) if"),
        ("if len(found) != 1", "if not found"),
        ('heads % mesh.shape["tensor"]', 'heads < mesh.shape["tensor"]'),
        ('rows = mesh.shape["data"] * mesh.shape["fsdp"]', 'rows = mesh.shape["data"]'),
        ('reshape(-1, mesh.shape["tensor"])', "reshape(-1, 1)"),
        ("max(len(devices) // known, 1)", "known"),
    ),
    *_all(
        "svlm_jax/streaming/memory_plan.py",
        "tests/cli/test_doctor.py::test_streams_share_the_weights_only "
        "tests/cli/test_doctor.py::test_a_second_works_in_the_larger_of_tower_and_decoder",
        ("dtype, streams=streams", "dtype"),
        ("rotated=cache.rotated", "rotated=2 * cache.rotated"),
        ("new * (5 * text.hidden_size", "new * (text.hidden_size"),
        ("max(seeing, reading)", "min(seeing, reading)"),
        ("count, itemsize) * streams", "count, itemsize)"),
        ("8 * text.vocab_size", "text.vocab_size"),
        ("patches * (5 * vision.hidden_size", "patches * (vision.hidden_size"),
    ),
    *_all(
        "svlm_jax/cache/sizes.py",
        "tests/streaming/test_memory_plan.py tests/cli/test_doctor.py::test_seven_billion_at_720p",
        ("leaf.size * leaf.dtype.itemsize", "leaf.size"),
        ("stored=streams * shape", "stored=shape"),
        ("copies=1)", "copies=2)"),
    ),
    *_all(
        "svlm_jax/models/positions.py",
        "tests/models/test_model.py::test_positions_of_long_videos "
        "tests/models/test_model.py::test_two_blocks_without_a_separator",
        ("return np.floor(inside_block(", "return (inside_block("),
        ('if after_vision == "max" else', 'if after_vision == "spatial" else'),
        ("per_second * seconds", "per_second"),
    ),
    *_all(
        "svlm_jax/engine/generate.py",
        "tests/engine/test_lanes.py",
        ("fold_in(key, reply.count)", "fold_in(key, jnp.zeros_like(reply.count))"),
        ("count=reply.count + on", "count=reply.count + 1"),
        ("limits.max_new_tokens) & ~stopped", "limits.max_new_tokens)"),
        ("speaking(carried[1], active, limits, stop).any()", "speaking(carried[1], active, limits, stop).all()"),
    ),
    *_all(
        "svlm_jax/engine/generate.py",
        "tests/engine/test_golden.py::test_recording[streamingvlm-a_default]",
        ("reply.penalized_ids | (jnp.arange(logits.shape[1]) == last[:, None])", "reply.penalized_ids"),
        ("jnp.maximum(self.count - 1, 0)", "self.count"),
        ("last[:, None], reply.count - 1, on", "last[:, None], reply.count, on"),
    ),
    *_all(
        "svlm_jax/engine/answer.py",
        "tests/streaming/test_qa_session.py::test_the_answer_is_what_token_after_token_would_say "
        "tests/streaming/test_qa_session.py::test_full_equals_plain_attention_over_everything "
        "tests/streaming/test_qa_session.py::test_the_answer_says_what_it_read "
        "tests/streaming/test_qa_session.py::test_pages_are_chosen_by_the_question_alone",
        ("(reading.length + number)[:, None]", "(reading.length + number + 1)[:, None]"),
        ("(reading.length - 1)[:, None, None]", "(reading.length - 2)[:, None, None]"),
        ("seen.begin[:, None] + jnp.maximum(order, 0)", "0 * seen.begin[:, None] + jnp.maximum(order, 0)"),
        ("merge(*remembered, *own)[0]", "own[0]"),
        ("jnp.where(text, -1.0, 0.0)", "jnp.where(text, 0.0, 0.0)"),
        ("memory.select(q, question.asked,", "memory.select(q, question.valid,"),
    ),
    *_all(
        "svlm_jax/engine/remember.py",
        "tests/streaming/test_qa_session.py::test_full_equals_plain_attention_over_everything "
        "tests/streaming/test_qa_session.py::test_each_layer_keeps_its_own_tokens_and_exactly_the_budget "
        "tests/engine/test_remember.py",
        ("jnp.cumsum(token, axis=1) - 1, shape.vision)", "jnp.cumsum(token, axis=1), shape.vision)"),
        ("seen=memory.seen + there.sum(1)", "seen=memory.seen + clip.valid.sum(1)"),
        ("grids=memory.grids + clip.valid.sum(1)", "grids=memory.grids"),
        ("[jnp.full_like(prefix_order, -1), cells]", "[prefix_order, vision_order]"),
        ("front(layer.keys), front(layer.values)", "front(layer.keys), layer.values"),
    ),
    *_all(
        "svlm_jax/engine/lanes.py",
        "tests/engine/test_lanes.py",
        ("jnp.asarray(target), _take(pool, jnp.asarray(source))", "jnp.asarray(source), _take(pool, jnp.asarray(target))"),
        (
            "        last=-1,\n        native_next=0.0,\n        key=key,",
            "        last=0,\n        native_next=0.0,\n        key=key,",
        ),
        (
            "pool, jnp.asarray(lane), slots=ring.empty_slots(pool.slots.order.shape[1]), chunk_index=0",
            "pool, jnp.asarray(lane), chunk_index=0",
        ),
        (
            "_numbers(pool, jnp.asarray(lane), window=window, sampling=sampling)",
            "_numbers(pool, jnp.asarray(lane), window=window)",
        ),
        ("lax.dynamic_slice_in_dim(x, lane, 1)", "lax.dynamic_slice_in_dim(x, 0, 1)"),
    ),
)
