"""What the tests of whole runs share."""

from __future__ import annotations

import numpy as np

from batchinfer.dispatcher import ActorLostError

IDS = np.arange(3000)  # of the rows that the fixture `data` holds


def lose_actor_when(shard_index, times, moment):
    """Plant the death of the actor `before` or `after` it scored a shard."""

    def plant(engine):
        left = [times]

        def die(actor, shard):
            if shard.index == shard_index and left[0]:
                left[0] -= 1
                raise ActorLostError("killed by the test")

        setattr(engine, moment, die)

    return plant
