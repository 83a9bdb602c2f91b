"""Optimizers and their schedules."""

import keras

# Tables of learned vectors, which are matrices in form only: no input ever multiplies them.
_TABLES = "embedding|positions"


def build_optimizer(
    steps: int,
    learning_rate: float,
    matrix_learning_rate: float,
    warmup: float,
    weight_decay: float,
    gradient_clip: float,
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
        weight_decay: Decoupled, times the rate; not applied to biases, scales, word embeddings and
            positions.
        gradient_clip: Highest global norm of the gradient.
    """
    warmup_steps = int(warmup * steps)

    def schedule(highest: float) -> keras.optimizers.schedules.CosineDecay:
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup_steps else highest,
            warmup_target=highest if warmup_steps else None,
            warmup_steps=warmup_steps,
            decay_steps=max(steps - warmup_steps, 1),
        )

    if matrix_learning_rate:
        ratio = learning_rate / matrix_learning_rate
        optimizer = keras.optimizers.Muon(
            schedule(matrix_learning_rate),
            adam_lr_ratio=ratio,
            weight_decay=weight_decay,
            # Keras multiplies it by Muon's rate.
            adam_weight_decay=weight_decay * ratio,
            exclude_layers=[_TABLES],
            global_clipnorm=gradient_clip,
        )
    else:
        optimizer = keras.optimizers.AdamW(
            schedule(learning_rate), weight_decay=weight_decay, global_clipnorm=gradient_clip
        )
    # Decay pulls towards zero what is a scale or an offset rather than a direction, and words
    # that are rarely seen.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", _TABLES])
    return optimizer
