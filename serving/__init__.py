"""Serving: TensorFlow Serving's API on one machine, its clients, and what a fleet needs.

Nothing here imports from `caption_gan` but `signature`; `push` alone also calls its programs.
"""

import os

# As in `caption_gan`: a dozen lines about the machine, none of which an operator can act on.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
