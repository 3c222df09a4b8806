# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fine-tune on a handful of clips, then see it stream
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/svlm-jax/svlm-jax/blob/main/notebooks/fine_tune.ipynb)
#
# The small model of the package comments on matches in English. Here it learns to call the teams *rojo* and *azul*, from four
# clips of a minute, on a CPU in about a minute and a half. The recipe is the one of the large runs: overlapped chunks of 24 s
# with what was said before them, plain causal attention, a loss on spoken words only, a frozen vision tower. Afterwards the
# model streams a match that it was not trained on, with a cache that it has never seen in training.

# %% tags=["install"]
from pathlib import Path

# The checkout that this notebook lies in, else the place where the project is published.
here = Path("..").resolve()
package = (
    f"{here}[notebooks]" if (here / "svlm_jax").is_dir() else "svlm-jax[notebooks] @ git+https://github.com/svlm-jax/svlm-jax"
)
# %pip install -q "{package}"

# %%
import dataclasses
from pathlib import Path

import jax

print(f"jax {jax.__version__} on {jax.default_backend()}: {', '.join(str(device) for device in jax.devices())}")
folder = Path("fine-tune")

# %% [markdown]
# ## Before
#
# What the model says of a match today.

# %%
import svlm_jax

UNSEEN = "synthetic:match?seed=99&minutes=0.5"


def watch(model):
    """Prints what a model says of half a minute of an unseen match."""
    vlm = svlm_jax.StreamingVLM.from_pretrained(model)
    with svlm_jax.open_source(UNSEEN, size=(84, 112)) as source:
        for caption in vlm.stream(query=None).watch(source):
            if not caption.silent:
                print(f"{caption.start:4.0f} s  {caption.text}")


watch("embedded")

# %% [markdown]
# ## Clips and their annotations
#
# Four mp4 files with word times in the published annotation format, one JSON line a chunk. `svlm_jax.data.transcripts` makes
# such files from WhisperX, SRT or VTT transcripts of your own videos.

# %%
from svlm_jax.data.annotations import AnnotationFile, write_annotations
from svlm_jax.synthetic.match import write_match

SPANISH = {"red": "rojo", "blue": "azul"}


def translate(annotation):
    words = tuple(word._replace(text=SPANISH.get(word.text.strip(), word.text)) for word in annotation.words)
    said = " ".join(SPANISH.get(word, word) for word in annotation.previous.split())
    return dataclasses.replace(annotation, words=words, previous=said)


chunks = []
for seed in range(100, 104):
    video, annotations = write_match(folder / "clips", seed, minutes=1)
    chunks += [translate(annotation) for annotation in AnnotationFile(annotations)]
count = write_annotations(folder / "clips" / "train_with_seeks.jsonl", chunks)
print(f"{count} chunks; the first one begins with:", " ".join(word.text for word in chunks[0].words[:8]))

# %% [markdown]
# ## Training
#
# The same configuration object that `svlm train` reads from a file, and the same run: checkpoints, metrics for TensorBoard, and
# a line a person can read. Interrupt the cell and run it again: it goes on from the last checkpoint.

# %%
from svlm_jax.data.chunks import Bucket, ChunkSettings
from svlm_jax.data.pipeline import PipelineSettings
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.train.config import AnnotationSet, DataConfig, ModelSource, TrainConfig
from svlm_jax.train.forward import Compute
from svlm_jax.train.loop import LoopConfig
from svlm_jax.train.optimizer import OptimizerConfig
from svlm_jax.train.run import export_run, run

config = TrainConfig(
    name="spanish",
    model=ModelSource(checkpoint="embedded"),
    data=DataConfig(
        sets=(AnnotationSet(str(folder / "clips" / "train_with_seeks.jsonl")),),
        pipeline=PipelineSettings(batch=4, buckets=(Bucket(1088, 24, (84, 112)),), threads=2),
        chunks=ChunkSettings(sink=8, tail=96),
        resize=PUBLISHED.at_most(84 * 112),
    ),
    compute=Compute(dtype="float32" if jax.default_backend() == "cpu" else "bfloat16", remat="none", clips=0),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup=0.1, clip_norm=1.0),
    loop=LoopConfig(steps=40, save_every=20, eval_every=0),
    folder=str(folder / "runs"),
)
run(config, say=print)

# %% [markdown]
# ## After
#
# The checkpoint becomes a folder in the layout of the Hugging Face hub, which `transformers` loads as well.

# %%
tuned = folder / "spanish-model"
if not tuned.exists():
    export_run(config, tuned)
watch(tuned)

# %% [markdown]
# ## The real thing
#
# `configs/sft_stage1.py` and `configs/sft_stage2.py` hold the published runs for Qwen2.5-VL-7B. On a node with eight GPUs:
#
#     python -m launch.local --processes 8 --one-device-each -- configs/sft_stage1.py
#
# and `launch/slurm`, `launch/k8s` for clusters.
