"""Gradients of a batch that is computed in parts, one after another.

What a step keeps for its gradients (activations) grows with the number of images. Computed part by
part, the gradients are the same sums, and only one part's activations are kept at a time. Keras's
own `gradient_accumulation_steps` spreads an update over several training steps instead: moving
averages, schedules, batch-wide token counts and checkpoints would all have to know about it.

N images of a batch, P parts.
"""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from caption_gan.distribution import replicas


class Part:
    """One of the parts of a batch.

    Args:
        index: Its number, from 0.
        count: Number of parts, P.
    """

    def __init__(self, index: tf.Tensor | int, count: int):
        self.index = index
        self.count = count

    def __call__(self, rows: tf.Tensor) -> tf.Tensor:
        """The part's rows of a batch [N, ...]; every image of it is in one of the parts."""
        if self.count == 1:
            return rows
        total = rows.shape[0]
        if total is not None and total % self.count == 0:
            # XLA needs sizes that are known beforehand.
            return tf.gather(tf.reshape(rows, [self.count, -1, *rows.shape[1:]]), self.index)
        first, end = self._bounds(rows)
        return rows[first:end]

    def share(self, rows: tf.Tensor) -> tf.Tensor | float:
        """Share of a batch [N, ...] that is in this part: the weight of a mean over the part."""
        if self.count == 1:
            return 1.0
        first, end = self._bounds(rows)
        return tf.cast(end - first, tf.float32) / tf.cast(tf.shape(rows)[0], tf.float32)

    def _bounds(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        total = tf.shape(rows)[0]
        return self.index * total // self.count, (self.index + 1) * total // self.count


def accumulated_gradients(
    losses: Callable[[Part], Mapping[str, tf.Tensor]],
    names: Sequence[str],
    variables: Sequence[keras.Variable],
    parts: int,
    loss_scale: tf.Tensor | float = 1.0,
) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
    """Differentiates a loss of a batch, one part after another.

    Args:
        losses: Scalars of a part of the batch. Those of all parts must add up to the batch's. The
            first one is differentiated.
        names: Their names.
        variables: What to differentiate by; the loss depends on each of them.
        parts: Number of parts, P.
        loss_scale: Multiplies the loss before it is differentiated; see `precision.scaled`.

    Returns:
        The scalars of the batch by name, and the gradients, multiplied by `loss_scale`.
    """

    def differentiate(index: tf.Tensor | int) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            found = losses(Part(index, parts))
            scaled_loss = loss_scale * found[names[0]]
        gradients = tape.gradient(scaled_loss, list(variables))
        if parts > 1:
            # Gradients of lookups are sparse, and have another size in each part.
            gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        return [*(found[name] for name in names), *gradients]

    if parts == 1:
        sums = differentiate(0)
    elif replicas.several():
        # Cross-replica operations cannot run inside tf.while_loop.
        sums = differentiate(0)
        for index in range(1, parts):
            # Otherwise the parts could be computed at the same time.
            with tf.control_dependencies(sums):
                more = differentiate(tf.constant(index))
            sums = [total + value for total, value in zip(sums, more, strict=True)]
    else:
        zeros = [tf.zeros([]) for _ in names]
        zeros += [tf.zeros(variable.shape, variable.dtype) for variable in variables]

        def add_part(index: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            values = differentiate(index)
            return index + 1, [total + value for total, value in zip(sums, values, strict=True)]

        _, sums = tf.while_loop(
            lambda index, _: index < parts,
            add_part,
            (tf.constant(0), zeros),
            parallel_iterations=1,
        )
    return dict(zip(names, sums, strict=False)), list(sums[len(names) :])
