"""Mismatched captions: real captions of other images, as negatives for a critic.

N images, K captions per image, T time, V vocabulary.
"""

import tensorflow as tf


def most_similar(captions: tf.Tensor) -> tf.Tensor:
    """For each image the index of another image whose captions are most similar, [N].

    Similarity is the cosine of TF-IDF vectors: words count by how few of the images have them.

    Args:
        captions: Token ids [N, K, T].
    """
    count = tf.shape(captions)[0]
    flat = tf.reshape(captions, [count, -1])
    words = tf.math.bincount(flat, axis=-1, binary_output=True, dtype=tf.float32)  # [N, V]
    images = tf.cast(count, tf.float32)
    rarity = tf.math.log(images / tf.maximum(tf.reduce_sum(words, axis=0), 1))  # [V]
    vectors = tf.math.l2_normalize(words * rarity, axis=-1)
    similarity = tf.matmul(vectors, vectors, transpose_b=True)  # [N, N]
    return tf.argmax(similarity - 2 * tf.eye(count), axis=-1)  # Never the image itself.
