"""Several streams of one model side by side: each in a lane of one pool, their chunks in one program."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

from svlm_jax.cache.ring import RingShape
from svlm_jax.engine.commentate import StepConfig
from svlm_jax.errors import ConfigError, SvlmError
from svlm_jax.streaming.caption import Caption, Timing
from svlm_jax.streaming.loaded import LoadedVLM
from svlm_jax.streaming.pool import LanePool
from svlm_jax.streaming.session import Session
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.video.chunk import Chunk


class SessionGroup:
    """Streams by name. Each says token for token what it says alone; pictures of another size run as a program of their own.

    Args:
      settings: of each stream; they may differ in `seed` and `duration`, and in texts that are as long.
      first: the first chunk of each, or one like it: its pictures decide the size of the lanes. It is not watched.
    Raises:
      ConfigError: the lanes do not fit the device, or the settings do not fit one program.
      StreamError: pictures are larger than the model was trained to see.
    """

    def __init__(self, vlm: LoadedVLM, settings: Mapping[str, StreamSettings], first: Mapping[str, Chunk]) -> None:
        self.vlm, self._settings, self._first = vlm, dict(settings), dict(first)
        alone = [Session(vlm, settings[name]) for name in first]
        needed = [session.capacity(chunk.frames) for session, chunk in zip(alone, first.values(), strict=True)]
        config, shapes = _roomiest(needed), {chunk.frames.shape for chunk in first.values()}
        if config.recompute and len(shapes) > 1:
            raise ConfigError(
                f"memory=recompute with pictures of {len(shapes)} sizes: expected sources of one size, because their clips are "
                f"kept side by side"
            )
        alone[0].afford(config, len(needed))
        self.pool = LanePool(config, len(needed), clip_shape=max(shapes))
        self.sessions: dict[str, Session] = {}
        self._begin()

    def _begin(self) -> None:
        for name, chunk in self._first.items():
            self.sessions[name] = Session(self.vlm, self._settings[name], self.pool)
            self.sessions[name].begin(chunk)

    def rehearse(self) -> None:
        """Compiles, by watching the first chunks once and forgetting them: for streams that cannot wait."""
        self.feed(self._first)
        for session in self.sessions.values():
            session.close()
        self._begin()

    def feed(self, chunks: Mapping[str, Chunk]) -> dict[str, Caption | SvlmError]:
        """Shows streams their next chunks. Returns their captions; what is wrong with one stream stands in its place."""
        said: dict[str, Caption | SvlmError] = {}
        turns: dict[tuple[int, ...], dict[str, Any]] = collections.defaultdict(dict)
        for name, chunk in chunks.items():
            try:
                turns[chunk.frames.shape][name] = self.sessions[name].prepare(chunk)
            except SvlmError as error:
                said[name] = error
        for together in turns.values():
            by_lane = {self.sessions[name].lane: turn for name, turn in together.items()}
            split = self._settings[next(iter(together))].split_timing
            outputs, times = self.pool.step(self.vlm.params, by_lane, split=split, whole=True)
            for name in together:
                session, timing = self.sessions[name], Timing(chunks[name].read_ms, *times)
                try:
                    said[name] = session.finish(chunks[name], outputs[session.lane], timing)
                except SvlmError as error:
                    said[name] = error
        return said

    def close(self, name: str) -> None:
        """Ends one stream; its lane stays idle."""
        self.sessions.pop(name).close()


def _roomiest(needed: list[StepConfig]) -> StepConfig:
    """A configuration with room for each of these."""
    rings = [config.ring for config in needed]
    ring = RingShape(*(max(getattr(ring, field.name) for ring in rings) for field in dataclasses.fields(RingShape)))
    return dataclasses.replace(needed[0], ring=ring)
