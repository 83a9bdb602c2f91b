"""A model server with TensorFlow Serving's API, its clients, and the configuration of a fleet.

Of `caption_gan`, modules import only `signature`. `push` also uses its evaluation and export.
"""

import os

# TensorFlow logs a dozen lines about the machine at the start. Operators cannot act on them.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
