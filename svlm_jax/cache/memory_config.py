"""What a stream remembers for questions: the policy and its settings, checked when they are made (`cache.memory` runs them)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from svlm_jax.errors import ConfigError

Policy = Literal["full", "window", "fifo", "top-k", "last-frames", "vsb", "vsb+par"]
Positions = Literal["contiguous", "original"]
Buckets = Literal["stream", "cache"]
SCORED = ("top-k", "vsb", "vsb+par")

# Options that not every policy looks at, and the policies that do.
USES: Mapping[str, tuple[str, ...]] = {
    "retrieve": ("vsb+par",),
    "window": ("window",),
    "frames": ("last-frames",),
    "budget": ("full", "fifo", "top-k", "vsb", "vsb+par"),
    "clip_frames": ("full", "window", "fifo", "top-k", "vsb", "vsb+par"),
}


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """What is remembered. The defaults are LiveVLM's where it publishes them, else those that `docs/memory.md` argues for.

    Attributes:
      policy: see `cache.memory`.
      budget: M, vision tokens kept in each layer, the short-term memory included.
      clip_frames: frames that are read, and compressed, at a time.
      recent_frames: the short-term memory, never compressed and always read.
      scatter: share of the long-term budget that buckets fill; the rest, R tokens, survives by score alone.
      capacity: tokens a bucket.
      queries: r, the last vision tokens of a clip, whose attention gives the scores.
      buckets: spans of the "stream", or of what is in the "cache".
      page: keys a page. retrieve: share of the pages that a question reads.
      page_positions: choose pages by rotated keys and queries (the paper's ablation, which is worse).
      positions: "contiguous" closes the gaps that eviction left; "original" keeps them.
      window: seconds kept by policy "window". frames: those kept by policy "last-frames".
      similar: frames whose cosine with the last frame kept is above this are not remembered; None = all are.
    """

    policy: Policy = "vsb+par"
    budget: int = 12_000
    clip_frames: int = 32
    recent_frames: int = 2
    scatter: float = 0.5
    capacity: int = 1
    queries: int = 64
    buckets: Buckets = "stream"
    page: int = 16
    retrieve: float = 0.4
    page_positions: bool = False
    positions: Positions = "contiguous"
    window: float = 16.0
    frames: int = 4
    similar: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("policy", Policy), ("positions", Positions), ("buckets", Buckets)):
            if getattr(self, name) not in get_args(allowed):
                raise ConfigError(f"memory {name}={getattr(self, name)!r}: expected one of {', '.join(get_args(allowed))}")
        for name in ("budget", "clip_frames", "capacity", "queries", "page", "frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"memory {name}={getattr(self, name)}: expected 1 or more")
        checks = (
            ("recent_frames", self.recent_frames >= 0, "0 or more"),
            ("scatter", 0 <= self.scatter <= 1, "a share from 0 to 1"),
            ("retrieve", 0 < self.retrieve <= 1, "a share above 0, at most 1"),
            ("window", math.isfinite(self.window) and self.window > 0, "a finite number of seconds above 0"),
            ("similar", self.similar is None or -1 <= self.similar <= 1, "a cosine from -1 to 1, or none"),
        )
        for name, fine, expected in checks:
            if not fine:
                raise ConfigError(f"memory {name}={getattr(self, name)}: expected {expected}")
        if self.page_positions and self.policy != "vsb+par":
            raise ConfigError(f"memory page_positions with policy={self.policy}: expected vsb+par, which alone reads pages")

    @classmethod
    def of(cls, policy: Policy, **options: Any) -> Self:
        """A policy with the options that were given for it (None = not given); ConfigError for one that it does not look at."""
        given = {name: value for name, value in options.items() if value is not None}
        for name, value in given.items():
            users = USES.get(name, (policy,))
            if policy not in users:
                raise ConfigError(f"memory {name}={value} with policy={policy}, which ignores it: expected {', '.join(users)}")
        return cls(policy=policy, **given)

    @property
    def scored(self) -> bool:
        """Whether a clip's attention decides what is kept."""
        return self.policy in SCORED

    @property
    def paged(self) -> bool:
        """Whether a question reads pages."""
        return self.policy == "vsb+par"
