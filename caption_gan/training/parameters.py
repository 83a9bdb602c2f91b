"""What a stage trains, and how much memory its variables take."""

from collections.abc import Iterable
from typing import NamedTuple

import keras
import numpy as np

from caption_gan.training.objectives.trainer import Trainer


class ParameterCount(NamedTuple):
    """Number of parameters of a network."""

    trained: int
    frozen: int


class TrainingSize(NamedTuple):
    """What a stage keeps between its steps.

    Attributes:
        networks: Parameters by network. Copies, such as a moving average, are frozen.
        weights: Bytes of all networks.
        gradients: Bytes of the gradients of what is trained.
        optimizers: Bytes of the optimizers' variables.
    """

    networks: dict[str, ParameterCount]
    weights: int
    gradients: int
    optimizers: int


def training_size(trainer: Trainer) -> TrainingSize:
    """Counts parameters and bytes of a compiled trainer.

    What is frozen for some epochs only counts as trained.
    """
    encoder, generator = trainer.captioner.encoder, trainer.captioner.generator
    networks = {"encoder": list(encoder.weights), "generator": list(generator.weights)}
    trained = list(trainer.generator_variables)
    if trainer.critic is not None:
        networks["critic"] = list(trainer.critic.weights)
        trained += trainer.critic.trainable_variables
    listed = {id(variable) for weights in networks.values() for variable in weights}
    copies = [variable for variable in trainer.weights if id(variable) not in listed]
    if trainer.average is not None:
        copies += trainer.average.copy.weights
    if copies:
        networks["copies"] = copies
    trained_ids = {id(variable) for variable in trained}
    optimizers = (
        variables
        for group, variables in trainer.checkpoint_variables.items()
        if group.endswith("optimizer")
    )
    return TrainingSize(
        {
            name: ParameterCount(
                _numbers(each for each in weights if id(each) in trained_ids),
                _numbers(each for each in weights if id(each) not in trained_ids),
            )
            for name, weights in networks.items()
        },
        sum(map(_bytes, networks.values())),
        _bytes(trained),
        sum(map(_bytes, optimizers)),
    )


def describe_size(stage: str, size: TrainingSize) -> list[str]:
    """A table of the parameters and a line on memory, to print before a stage."""
    trained, frozen = map(sum, zip(*size.networks.values(), strict=True))
    rows = {**size.networks, "together": ParameterCount(trained, frozen)}
    width = max(map(len, [stage, *rows]))
    lines = [f"{stage:{width}}  {'trained':>13}  {'frozen':>13}  parameters"]
    lines += [f"{name:{width}}  {row.trained:13,}  {row.frozen:13,}" for name, row in rows.items()]
    memory = ", ".join(
        f"{name} {getattr(size, name) / 1e6:.1f}" for name in ("weights", "gradients", "optimizers")
    )
    return [*lines, f"memory in MB: {memory}; what a step computes comes on top"]


def _numbers(variables: Iterable[keras.Variable]) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


def _bytes(variables: Iterable[keras.Variable]) -> int:
    return sum(
        int(np.prod(variable.shape)) * np.dtype(variable.dtype).itemsize for variable in variables
    )
