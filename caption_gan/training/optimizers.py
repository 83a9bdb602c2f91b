"""Optimizers and their schedules."""

from collections.abc import Sequence
from typing import Any

import keras

from caption_gan.distribution import precision

# Tables of learned vectors, which are matrices in form only: no input ever multiplies them.
_TABLES = "embedding|positions"


class _MeanGradients(keras.optimizers.Optimizer):
    """Mixed into an optimizer: gradients are means over the replicas when they come.

    Keras adds up the replicas' gradients after it has clipped each of them, which is not what
    clipping those of the whole batch gives.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars


class Adam(_MeanGradients, keras.optimizers.Adam):
    """Keras's Adam for gradients that are means over the replicas."""


class _OwnRate(_MeanGradients):
    """Mixed into an optimizer: pretrained variables have a rate of their own.

    Args:
        pretrained: Those variables.
        share: Their rate as a share of the others'.
    """

    def __init__(self, *args: Any, pretrained: Sequence[keras.Variable], share: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.pretrained = {self._var_key(variable) for variable in pretrained}
        self.share = share

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable, as Keras's optimizers do."""
        if self._var_key(variable) in self.pretrained:
            learning_rate = learning_rate * self.share
        super().update_step(gradient, variable, learning_rate)


class AdamW(_OwnRate, keras.optimizers.AdamW):
    """Keras's AdamW with a rate of its own for pretrained variables."""


class Muon(_OwnRate, keras.optimizers.Muon):
    """Keras's Muon with a rate of its own for pretrained variables."""


def build_optimizer(
    steps: int,
    learning_rate: float,
    matrix_learning_rate: float,
    warmup: float,
    weight_decay: float,
    gradient_clip: float,
    pretrained: Sequence[keras.Variable] = (),
    pretrained_learning_rate: float = 0.0,
) -> keras.optimizers.Optimizer:
    """Muon for weight matrices (Jordan et al., 2024), AdamW for all other variables.

    Muon makes each matrix's update orthogonal: every direction moves by the same amount, also the
    rare ones, such as those that tell colours or places apart once the grammar is learnt. On drawn
    charts 900 steps of it gave 0.72 true captions where AdamW alone gave 0.47.

    Args:
        steps: Number of training steps, after which the rates are zero.
        learning_rate: Highest rate of AdamW.
        matrix_learning_rate: Highest rate of Muon; 0 leaves matrices to AdamW.
        warmup: Share of the steps in which the rates rise from zero; then they fall along a half
            cosine.
        weight_decay: Decoupled, times the rate; not applied to biases, scales, word embeddings,
            positions and pretrained variables.
        gradient_clip: Highest global norm of the gradient.
        pretrained: Variables that have been trained on other data.
        pretrained_learning_rate: Highest rate of AdamW for them.
    """
    warmup_steps = int(warmup * steps)

    def schedule(highest: float) -> keras.optimizers.schedules.CosineDecay:
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup_steps else highest,
            warmup_target=highest if warmup_steps else None,
            warmup_steps=warmup_steps,
            decay_steps=max(steps - warmup_steps, 1),
        )

    shared: dict[str, Any] = {
        "pretrained": pretrained,
        "share": pretrained_learning_rate / learning_rate,
        "weight_decay": weight_decay,
        "global_clipnorm": gradient_clip,
    }
    if matrix_learning_rate:
        ratio = learning_rate / matrix_learning_rate
        optimizer = Muon(
            schedule(matrix_learning_rate),
            adam_lr_ratio=ratio,
            # Keras multiplies it by Muon's rate.
            adam_weight_decay=weight_decay * ratio,
            exclude_layers=[_TABLES],
            **shared,
        )
    else:
        optimizer = AdamW(schedule(learning_rate), **shared)
    # Decay pulls towards zero what is a scale or an offset rather than a direction, and words
    # that are rarely seen, and all that was learnt before.
    optimizer.exclude_from_weight_decay(
        var_list=list(pretrained), var_names=["bias", "gamma", "beta", _TABLES]
    )
    return precision.scaled(optimizer)
