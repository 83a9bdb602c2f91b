"""A model server with TensorFlow Serving's API, its clients, and the configuration of a fleet.

Of `caption_gan`, modules import only `signature`, and this package `quiet_tensorflow`. `push` also
uses its evaluation and export.
"""

from caption_gan.distribution import quiet_tensorflow

quiet_tensorflow.install()
