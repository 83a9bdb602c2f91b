"""What COCO and SciCap cost on GPUs, on paper: `python tools/scaling.py`.

From the formulas of `step_costs.py`, the settings of `configs/coco2014.yaml` and
`configs/scicap.yaml`, the number of operations that `count_operations.py` saw a step execute, and
data sheets. Nothing here was measured on a GPU; docs/scaling.md says what is assumed.
"""

import argparse
import math
from typing import NamedTuple

import keras
from random_stage import OBJECTIVES, sizes_of
from step_costs import FLOAT, Sizes, critic_weights, generator_weights, step

from caption_gan.config.run import Config
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.run import read_config

# Executed operations of a step with 23 words and 5 updates of a critic (`self_critical`: without
# one), by `count_operations.py`. As the recurrences are unrolled, they grow with the words.
EXECUTED = {
    "maximum_likelihood": 2_547,  # With `matrix_learning_rate` 0, as in both files of settings.
    "wgan_gp": 51_925,
    "policy_gradient": 20_486,
    "self_critical": 7_000,
}
EXECUTED_WORDS = 23
LAUNCH = 5e-6  # Seconds from one small operation to the next, assumed.
UTILISATION = 0.4  # Of the peak, in products large enough not to be a matter of launches, assumed.


class Device(NamedTuple):
    """A GPU and what connects it, by data sheet; rates a second."""

    name: str
    peak: float  # TF32 operations, dense, which TensorFlow uses for float32 products
    memory: float  # Bytes
    inside: float  # Bytes one way to GPUs of the same machine
    outside: float  # Bytes to other machines


DEVICES = (
    Device("A100", 156e12, 2.04e12, 300e9, 25e9),  # 80 GB SXM; NVLink 3; 200 Gbit/s a GPU
    Device("H100", 494e12, 3.35e12, 450e9, 50e9),  # 80 GB SXM; NVLink 4; 400 Gbit/s a GPU
)


class Set(NamedTuple):
    """A data set with its settings."""

    name: str
    config: str
    captions: int
    captions_an_image: int
    vocabulary: int


SETS = (
    Set("COCO", "configs/coco2014.yaml", 566_000, 5, 10_000),
    Set("SciCap, first sentences", "configs/scicap.yaml", 107_000, 1, 10_000),
    Set("SciCap, all", "configs/scicap.yaml", 416_000, 1, 10_000),
)


def convolutions(network: keras.Model) -> float:
    """Operations of an image's forward pass through the convolutions of a network."""
    operations = 0.0
    for layer in network.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            terms = math.prod(layer.kernel_size)
        elif isinstance(layer, keras.layers.Conv2D):
            terms = math.prod(layer.kernel.shape[:3])
        else:
            continue
        operations += 2.0 * math.prod(layer.output.shape[1:]) * terms
    return operations


class Work(NamedTuple):
    """A step on one device."""

    images: int
    operations: float
    bytes: float
    executed: float
    gradients: float  # Bytes that devices must add up.

    def seconds(self, device: Device, devices: int) -> tuple[float, float]:
        """Time of the step's own work, and of adding up gradients in a ring, one after another."""
        products = max(self.operations / (UTILISATION * device.peak), self.bytes / device.memory)
        rate = device.inside if devices <= 8 else device.outside
        ring = 2 * (devices - 1) / devices * self.gradients / rate
        return products + self.executed * LAUNCH, ring


def work(config: Config, objective: str, sizes: Sizes, encoder: keras.Model) -> Work:
    """A step with its encoder, whose last layers maximum likelihood trains."""
    settings = getattr(config, objective)
    has_critic = getattr(settings, "has_critic", False)
    # With a critic, `self_critical` differs by its reward alone.
    name = "policy_gradient" if objective == "self_critical" and has_critic else objective
    cost = step(objective, sizes, has_critic)
    images = settings.images_a_step
    # Forward, and gradients of inputs and of weights.
    times = 3 if objective == "maximum_likelihood" else 1
    weights = generator_weights(sizes)
    if times == 3:
        weights += sum(math.prod(variable.shape) for variable in encoder.trainable_variables)
    if has_critic:
        weights += sizes.critic_updates * critic_weights(sizes)
    return Work(
        images,
        cost.operations + times * images * convolutions(encoder.second),
        cost.bytes,
        EXECUTED[name] * sizes.words / EXECUTED_WORDS,
        FLOAT * weights,
    )


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fleet", type=int, default=64, help="GPUs of the fleet, 8 a machine")
    arguments = parser.parse_args()
    counts = (1, 8, arguments.fleet)
    for data in SETS:
        config = read_config([f"--config={data.config}"], parser.prog)
        # What the encoder knows does not matter here, only its size.
        encoder = build_encoder(config.encoder, load_weights=False)
        images = data.captions // data.captions_an_image
        print(f"\n{data.name}, {data.captions:,} captions: minutes a pass over {images:,} images")
        print(f"{'':20}{'images':>8}{'Tflop':>8}{'executed':>10}", end="")
        print(*(f"{f'{devices} {device.name}':>13}" for device in DEVICES for devices in counts))
        for objective in OBJECTIVES:
            sizes = sizes_of(config, objective, data.vocabulary, *encoder.regions_shape)
            done = work(config, objective, sizes, encoder)
            print(f"{objective:20}{done.images:8}{done.operations / 1e12:8.2f}", end="")
            print(f"{done.executed:10,.0f}", end="")
            for device in DEVICES:
                for devices in counts:
                    own, ring = done.seconds(device, devices)
                    minutes = math.ceil(images / done.images / devices) * (own + ring) / 60
                    print(f"{f'{minutes:.2f} ({ring / (own + ring):.0%})':>14}", end="")
            print()


if __name__ == "__main__":
    main()
