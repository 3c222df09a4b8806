"""The model that recalls facts, second stage: which of up to five flags of a clip of 32 s was it? Goes on from the first:

python -m launch.train configs/facts.py --export runs/facts-short
"""

import dataclasses

from configs import facts
from svlm_jax.train.config import ModelSource, TrainConfig


def get_config() -> TrainConfig:
    first = facts.get_config()
    return dataclasses.replace(
        first,
        name="facts-long",
        model=ModelSource(checkpoint="runs/facts-short"),
        data=facts.data(20, (facts.MIDDLE, 8.0, 1.0), (facts.LONG, 16.0, 2.0)),
        evaluation=facts.data(30, (facts.LONG, 16.0, 1.0)),
        loop=dataclasses.replace(first.loop, steps=1600),
    )
