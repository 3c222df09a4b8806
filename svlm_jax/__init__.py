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
    from svlm_jax.cache.policies import memory_policy as memory_policy
    from svlm_jax.cache.window import WindowConfig as WindowConfig
    from svlm_jax.engine.commentate import StepConfig as StepConfig
    from svlm_jax.engine.commentate import step as step
    from svlm_jax.engine.sampling import Sampling as Sampling
    from svlm_jax.errors import SvlmError as SvlmError
    from svlm_jax.models.config import ModelConfig as ModelConfig
    from svlm_jax.prompt.qa import Answer as Answer
    from svlm_jax.streaming.caption import Caption as Caption
    from svlm_jax.streaming.caption import Timing as Timing
    from svlm_jax.streaming.qa_session import QASession as QASession
    from svlm_jax.streaming.qa_session import QASettings as QASettings
    from svlm_jax.streaming.session import Session as Session
    from svlm_jax.streaming.settings import StreamSettings as StreamSettings
    from svlm_jax.streaming.vlm import StreamingVLM as StreamingVLM
    from svlm_jax.video.source import FrameSource as FrameSource
    from svlm_jax.video.source import open_source as open_source

_HOME = {
    "Answer": "prompt.qa",
    "Caption": "streaming.caption",
    "FrameSource": "video.source",
    "memory_policy": "cache.policies",
    "ModelConfig": "models.config",
    "QASession": "streaming.qa_session",
    "QASettings": "streaming.qa_session",
    "Sampling": "engine.sampling",
    "Session": "streaming.session",
    "StepConfig": "engine.commentate",
    "StreamSettings": "streaming.settings",
    "StreamingVLM": "streaming.vlm",
    "SvlmError": "errors",
    "Timing": "streaming.caption",
    "WindowConfig": "cache.window",
    "open_source": "video.source",
    "step": "engine.commentate",
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
