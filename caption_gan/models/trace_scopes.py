"""Names of the parts of a training step in a profiler's trace (docs/profiling.md)."""

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
    """Decorates a function: puts its operations, and their gradients, under a name scope.

    Names are given when the graph is built, so that they cost nothing in a step.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def named(*args: P.args, **kwargs: P.kwargs) -> R:
            with tf.name_scope(name):
                return function(*args, **kwargs)

        return named

    return decorate
