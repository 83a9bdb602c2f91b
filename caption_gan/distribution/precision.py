"""The precision in which networks compute while they are trained.

Variables are float32 in all of them, and so (their `variable_dtype`) is what exponentials and small
differences depend on: softmaxes, normalisation, losses, a critic's verdict, its penalty's slopes.
"""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Networks that are built within compute in that precision, of `Config.precision`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def scaled(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer, of scaled losses where small gradients would vanish in float16.

    Losses must be multiplied by its `scale_loss` before they are differentiated. A step whose
    gradient overflows changes nothing but the scale, which is halved (Micikevicius et al., 2018).
    """
    if keras.config.dtype_policy().compute_dtype != "float16":
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)
