"""Names of the parts of a step, which a trace shows (docs/profiling.md)."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import tensorflow as tf

ENCODER = "encoder"
ROLLOUT = "rollout"
CRITIC_UPDATE = "critic_update"
PENALTY = "penalty"
REWARD = "reward"
GENERATOR_UPDATE = "generator_update"
SCOPES = (ENCODER, ROLLOUT, CRITIC_UPDATE, PENALTY, REWARD, GENERATOR_UPDATE)

P = ParamSpec("P")
R = TypeVar("R")


def trace_scope(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function whose operations are to have the name of a phase before theirs.

    A name costs nothing when no trace is taken: it is given when a graph is made. TensorFlow
    gives it to the gradients too.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def named(*args: P.args, **kwargs: P.kwargs) -> R:
            with tf.name_scope(name):
                return function(*args, **kwargs)

        return named

    return decorate
