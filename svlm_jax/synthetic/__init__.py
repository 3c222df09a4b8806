"""Streams without end, drawn, with the truth of every second: a ball game to commentate on, and facts to remember."""

from svlm_jax.synthetic.facts import Fact, Facts
from svlm_jax.synthetic.match import Match, Second, write_match
from svlm_jax.synthetic.score import score_match
from svlm_jax.synthetic.world import Event

__all__ = ["Event", "Fact", "Facts", "Match", "Second", "score_match", "write_match"]
