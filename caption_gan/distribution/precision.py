"""The precision in which networks compute during training.

Variables are float32 in all of them. Operations that depend on exponentials or small differences
also compute in float32 (`variable_dtype`): softmax, normalisation, losses, the critic's score head
and the gradients in its penalty.
"""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Networks built in this context compute in the given precision (`Config.precision`)."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def scaled(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns the optimizer, with loss scaling in float16, where small gradients would vanish.

    Scale losses with its `scale_loss` before differentiating them. A step whose gradient overflows
    is skipped and halves the scale (Micikevicius et al., 2018).
    """
    if keras.config.dtype_policy().compute_dtype != "float16":
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)
