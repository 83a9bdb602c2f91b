"""Adversarial image captioning: from images with captions to a served captioner."""

from caption_gan import quiet_tensorflow

quiet_tensorflow.install()
