"""Adversarial image captioning: from images with captions to a served captioner."""

import os

# TensorFlow greets with a dozen lines about the machine, errors about absent GPUs among them.
# What really goes wrong arrives as an exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
