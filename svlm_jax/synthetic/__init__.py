"""A match without end: a procedural ball game with pictures, words and the truth of every second."""

from svlm_jax.synthetic.match import Match, Second, write_match
from svlm_jax.synthetic.score import score_match
from svlm_jax.synthetic.world import Event

__all__ = ["Event", "Match", "Second", "score_match", "write_match"]
