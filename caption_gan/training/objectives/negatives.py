"""Real captions of other images that a critic has to tell from an image's own.

N images a step, K captions an image, T time, V vocabulary.
"""

import tensorflow as tf


def most_alike(real: tf.Tensor) -> tf.Tensor:
    """For each of N images with captions [N, K, T], another one whose captions are most alike.

    What is alike are the words that few of the images have in their captions.
    """
    count = tf.shape(real)[0]
    flat = tf.reshape(real, [count, -1])
    words = tf.math.bincount(flat, axis=-1, binary_output=True, dtype=tf.float32)  # [N, V]
    images = tf.cast(count, tf.float32)
    rarity = tf.math.log(images / tf.maximum(tf.reduce_sum(words, axis=0), 1))  # [V]
    weighed = tf.math.l2_normalize(words * rarity, axis=-1)
    likeness = tf.matmul(weighed, weighed, transpose_b=True)  # [N, N]
    itself = tf.eye(count)
    return tf.argmax(likeness - 2 * itself, axis=-1)
