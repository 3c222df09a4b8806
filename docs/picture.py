"""Draws docs/watching.png, the picture of the README: `python docs/picture.py`."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

import svlm_jax
from svlm_jax.output.cache_figure import cache_column, draw_cache, draw_second

SOURCE, SIZE, SHOWN = "synthetic:match?seed=2026&minutes=1.2", (336, 448), 6


def main() -> None:
    """Streams a match through the small model of the package, and draws some seconds of it beside its cache."""
    session = svlm_jax.StreamingVLM.from_pretrained("embedded").stream(query=None)
    seconds, columns = [], []
    # Drawn as large as people would watch it, and as small as the model does.
    with svlm_jax.open_source(SOURCE, size=SIZE) as large, svlm_jax.open_source(SOURCE, size=(84, 112)) as small:
        for picture, chunk in zip(large, small, strict=True):
            caption = session.feed(chunk)
            columns.append(cache_column(session.state))
            if not caption.silent:
                seconds.append((picture.frames[0], caption))
    figure = plt.figure(figsize=(15, 5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1))
    for axes, (frame, caption) in zip(left.subplots(2, SHOWN // 2).flat, seconds[-SHOWN:], strict=True):
        draw_second(axes, frame, f"{caption.start:.0f} s", caption.text)
    draw_cache(right.subplots(), columns)
    figure.savefig(Path(__file__).with_name("watching.png"), dpi=80)


if __name__ == "__main__":
    main()
