"""A plugin for lmms-eval: `lmms-eval --model svlm --model_args pretrained=FOLDER,row=stream --tasks ...`.

lmms-eval finds it by the entry point group `lmms_eval.models`. It is no dependency, because it wants torch and an older PyAV:
docs/evaluation.md says how both are installed into an environment of their own.
"""

from typing import Any


def manifest() -> Any:
    """The `ModelManifest` by which lmms-eval knows the model; the class is imported only when it is asked for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="svlm", chat_class_path="svlm_jax.eval.lmms.model.Svlm", aliases=("svlm_jax",))
