"""Which module a model family is built from."""

from svlm_jax.models.config import Family
from svlm_jax.models.llava_onevision.model import LlavaOnevision
from svlm_jax.models.qwen2_vl.model import Qwen
from svlm_jax.models.vlm import VLM

# All share the decoder; the vision tower of the Qwen families follows VisionConfig.hidden_act.
MODULES: dict[Family, type[VLM]] = {"qwen2_5_vl": Qwen, "qwen2_vl": Qwen, "llava_onevision": LlavaOnevision}
