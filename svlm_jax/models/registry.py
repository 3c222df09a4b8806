"""Which module a model family is built from."""

from svlm_jax.config import Family
from svlm_jax.models.vlm import Qwen

# Both families share the decoder; the vision tower follows VisionConfig.hidden_act.
MODULES: dict[Family, type[Qwen]] = {"qwen2_5_vl": Qwen, "qwen2_vl": Qwen}
