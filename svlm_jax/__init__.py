"""Streaming vision-language models in JAX.

    import svlm_jax

    vlm = svlm_jax.StreamingVLM.from_pretrained("mit-han-lab/StreamingVLM")
    for caption in vlm.watch("match.mp4"):
        ...

The names below are imported when they are first used, so that `import svlm_jax` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from svlm_jax.cache.window import WindowConfig as WindowConfig
    from svlm_jax.config import ModelConfig as ModelConfig
    from svlm_jax.config_memory import MemoryConfig as MemoryConfig
    from svlm_jax.errors import SvlmError as SvlmError
    from svlm_jax.streaming.caption import Caption as Caption
    from svlm_jax.streaming.caption import Timing as Timing
    from svlm_jax.streaming.dialogue import Answer as Answer
    from svlm_jax.streaming.recall import Recall as Recall
    from svlm_jax.streaming.recall import RecallSettings as RecallSettings
    from svlm_jax.streaming.sampling import Sampling as Sampling
    from svlm_jax.streaming.session import Session as Session
    from svlm_jax.streaming.session import StreamingVLM as StreamingVLM
    from svlm_jax.streaming.session import StreamSettings as StreamSettings
    from svlm_jax.streaming.sources import FrameSource as FrameSource
    from svlm_jax.streaming.sources import open_source as open_source
    from svlm_jax.streaming.step import StepConfig as StepConfig
    from svlm_jax.streaming.step import step as step

_HOME = {
    "Answer": "streaming.dialogue",
    "Caption": "streaming.caption",
    "FrameSource": "streaming.sources",
    "MemoryConfig": "config_memory",
    "ModelConfig": "config",
    "Recall": "streaming.recall",
    "RecallSettings": "streaming.recall",
    "Sampling": "streaming.sampling",
    "Session": "streaming.session",
    "StepConfig": "streaming.step",
    "StreamSettings": "streaming.session",
    "StreamingVLM": "streaming.session",
    "SvlmError": "errors",
    "Timing": "streaming.caption",
    "WindowConfig": "cache.window",
    "open_source": "streaming.sources",
    "step": "streaming.step",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'svlm_jax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"svlm_jax.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
