# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Watch a video, second by second
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/svlm-jax/svlm-jax/blob/main/notebooks/watch_a_match.ipynb)
#
# A streaming vision-language model watches a video of any length and says once a second what happens, at constant memory and
# constant time. This notebook runs on a CPU in about a minute with a small model that comes with the package; the same calls
# run the released 7B model on a GPU or a TPU (last section).

# %% tags=["install"]
from pathlib import Path

# The checkout that this notebook lies in, else the place where the project is published.
here = Path("..").resolve()
package = (
    f"{here}[notebooks]" if (here / "svlm_jax").is_dir() else "svlm-jax[notebooks] @ git+https://github.com/svlm-jax/svlm-jax"
)
# %pip install -q "{package}"

# %%
import jax

print(f"jax {jax.__version__} on {jax.default_backend()}: {', '.join(str(device) for device in jax.devices())}")

# %% [markdown]
# ## Captions appear
#
# The source is a match that never ends, drawn from a seed. The small model was trained on other seeds: it has never seen this
# one. A file name, a URL or a webcam number would do as well.

# %%
import svlm_jax

vlm = svlm_jax.StreamingVLM.from_pretrained("embedded")
session = vlm.stream(query=None)
source = session.open("synthetic:match?seed=2026&minutes=1.5")

from svlm_jax.output.cache_figure import cache_column, draw_cache, draw_second

chunks, captions, columns = [], [], []
with source:
    for chunk in source:
        caption = session.feed(chunk)
        chunks.append(chunk)
        captions.append(caption)
        columns.append(cache_column(session.state))
        if not caption.silent:
            print(f"{caption.start:4.0f} s  {caption.text}")

# %% [markdown]
# What it saw when it spoke last:

# %%
import matplotlib.pyplot as plt

spoken = [i for i, caption in enumerate(captions) if not caption.silent][-8:]
figure, axes = plt.subplots(2, 4, figsize=(13, 6))
for ax, i in zip(axes.flat, spoken, strict=False):
    draw_second(ax, chunks[i].frames[0], f"{captions[i].start:.0f} s", captions[i].text)
figure.tight_layout()

# %% [markdown]
# ## What it remembers
#
# The cache has a fixed number of slots. Pictures leave after 16 seconds. Words stay: first beside their pictures, then, moved
# without being computed again, among the earlier words, of which the first 8 and the last 96 tokens are kept. After some
# seconds the picture no longer changes its height: this is why a stream can run for ever.

# %%
figure, ax = plt.subplots(figsize=(13, 5))
draw_cache(ax, columns)
figure.tight_layout()

# %%
slowest = sorted(caption.timing.step for caption in captions[2:])[-1]
print(
    f"{len(captions)} s of video, at most {slowest:.0f} ms each; {session.config.ring.slots} slots from the first to the last"
)

# %% [markdown]
# ## Was it right?
#
# The match knows what happened, so no judge is needed.

# %%
from svlm_jax.synthetic.match import Match
from svlm_jax.synthetic.score import score_match

report = score_match(Match(2026).seconds(len(captions)), [caption.text for caption in captions])
print(f"events found: F1 {report.event_f1:.3f}; silence where nothing happened: {report.silence_precision:.3f}")
print(f"scores told rightly, which were on the board only at the beginning: {report.score_accuracy:.2f}")

# %% [markdown]
# ## A question about something long gone
#
# Another small model of the package answers questions. In its stream a card shows a flag with a sign on it for six seconds of
# every minute, and never again. LiveVLM's memory keeps some of what it saw, and an answer reads a fifth of that.

# %%
from svlm_jax.cache.policies import memory_policy
from svlm_jax.synthetic.facts import Facts

memory = memory_policy("vsb+par", budget=810, retrieve=0.2)
recall = svlm_jax.StreamingVLM.from_pretrained("embedded-facts").qa_session(memory=memory, max_new_tokens=4)
with svlm_jax.open_source("synthetic:facts?seed=2026&minutes=10", size=(84, 84), fps=0.5, chunk_seconds=4) as source:
    for _ in recall.watch(source):
        pass
for fact in Facts(2026).until(recall.position):
    answer = recall.ask(fact.question)
    print(f"{fact.question} {answer.text} (it was {fact.answer}, {(answer.at - fact.end) / 60:.1f} minutes ago)")
    of_card = [f"{second:.0f}" for second in answer.seconds if fact.begin - 4 < second < fact.end]
    print(f"    read {len(answer.seconds)} moments of {answer.at:.0f} s, and of the card's: {', '.join(of_card) or 'none'} s")

# %% [markdown]
# ## A stream is a value
#
# It can be forked, saved and resumed. A fork watches on without touching the stream it came from.

# %%
twin = session.fork()
with svlm_jax.open_source("synthetic:match?seed=7&minutes=0.1", size=(84, 112)) as other:
    for chunk in other:
        print("the fork, of another match:", twin.feed(chunk).text or "…")
print(f"the stream itself still stands at {session.position:.0f} s, its fork at {twin.position:.0f} s of its own")

# %% [markdown]
# ## Another family
#
# Qwen3-VL streams by the same calls, with a time stamp before each pair of frames. These weights are random: they speak, but
# say nothing.

# %%
other = svlm_jax.StreamingVLM.from_pretrained("random:tiny:qwen3_vl")
for caption in other.watch("synthetic:match?seed=7&minutes=0.05"):
    print(f"{caption.start:4.0f} s  {len(caption.tokens)} tokens said, {caption.usage['vision'][0]} of video in the cache")

# %% [markdown]
# ## With the released weights
#
# On a GPU with 24 GB or more, or a TPU. The first second compiles; then every second takes the same time.

# %%
if jax.default_backend() in ("gpu", "tpu"):
    model, video = "mit-han-lab/StreamingVLM", None  # put the name of a video file or a URL here
    if video is not None:
        for caption in svlm_jax.StreamingVLM.from_pretrained(model).watch(video):
            print(f"{caption.start:4.0f} s  {caption.text}")
else:
    print("no GPU or TPU here: Runtime > Change runtime type, then run this cell again")
