"""Low-rank adaptation (LoRA; Hu et al., 2022) of a generator that is trained already.

A kernel W of a `Dense` layer stays as it is, and training changes two matrices A and B whose
product is added to it. Keras adds the product to W where it saves weights, so that files of weights
have none of this.
"""

import keras
import numpy as np

from caption_gan.models.generators.generator import Generator


def enable_lora(generator: Generator, rank: int) -> None:
    """Freezes a built generator, and gives its `lora_layers` matrices of a rank to train.

    What a pretrained network does not have, its `new_variables`, stays trainable.
    """
    for variable in generator.weights:
        variable.trainable = False
    for variable in generator.new_variables:
        variable.trainable = True
    for layer in generator.lora_layers:
        # B is zero: the generator predicts what it did before.
        layer.enable_lora(rank)
    generator.lora_rank = rank


def merged_weights(generator: Generator) -> list[np.ndarray]:
    """The weights of a generator in the order of `get_weights`, with LoRA's products added."""
    if not generator.lora_rank:
        return generator.get_weights()
    kernels, added = {}, set()
    for layer in generator.lora_layers:
        kernel, *others = layer.weights
        kernels[id(kernel)] = layer.kernel
        added |= {id(variable) for variable in others if "lora" in variable.name}
    return [
        keras.ops.convert_to_numpy(kernels.get(id(variable), variable))
        for variable in generator.weights
        if id(variable) not in added
    ]
