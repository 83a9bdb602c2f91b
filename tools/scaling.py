"""Estimates the cost of COCO and SciCap on GPUs: `python tools/scaling.py`.

Uses the formulas of `step_costs.py`, the settings of `configs/coco2014.yaml` and
`configs/scicap.yaml`, the number of operations per step that `count_operations.py` counted, and
data sheets. Nothing here was measured on a GPU; docs/scaling.md states the assumptions.
"""

import argparse
import math
from typing import NamedTuple

import keras
from random_trainer import sizes_of
from step_costs import FLOAT, Sizes, critic_weights, generator_weights, step, training_state_bytes

from caption_gan.config.run import Config
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.settings import read_config

# Executed operations of a step with 23 words and 5 critic updates (`self_critical`: no critic), by
# `count_operations.py`. They grow with the words, because the recurrences are unrolled.
EXECUTED = {
    "maximum_likelihood": 2_420,  # With `matrix_learning_rate` 0, as in both configs.
    "wgan_gp": 46_103,
    "policy_gradient": 20_264,
    "self_critical": 7_080,
}
EXECUTED_WORDS = 23
LAUNCH = 5e-6  # Seconds per small operation, assumed.
UTILIZATION = 0.4  # Share of the peak that large products reach, assumed.


class Device(NamedTuple):
    """A GPU and its connections, by data sheet; rates per second."""

    name: str
    peak: float  # TF32 operations, dense, which TensorFlow uses for float32 products
    memory: float  # Bytes
    inside: float  # Bytes one way to GPUs of the same machine
    outside: float  # Bytes to other machines


DEVICES = (
    Device("A100", 156e12, 2.04e12, 300e9, 25e9),  # 80 GB SXM; NVLink 3; 200 Gbit/s a GPU
    Device("H100", 494e12, 3.35e12, 450e9, 50e9),  # 80 GB SXM; NVLink 4; 400 Gbit/s a GPU
)


class DataSet(NamedTuple):
    """A data set with its settings."""

    name: str
    config: str
    captions: int
    captions_per_image: int
    vocabulary: int


DATA_SETS = (
    DataSet("COCO", "configs/coco2014.yaml", 566_000, 5, 10_000),
    DataSet("SciCap, first sentences", "configs/scicap.yaml", 107_000, 1, 10_000),
    DataSet("SciCap, all", "configs/scicap.yaml", 416_000, 1, 10_000),
)


def convolutions(network: keras.Model) -> float:
    """Operations of the convolutions in a network's forward pass of one image."""
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


class StepCost(NamedTuple):
    """Cost of a step on one device."""

    images: int
    operations: float
    bytes: float
    executed: float
    gradients: float  # Bytes of gradients to sum over devices.

    def seconds(self, device: Device, devices: int) -> tuple[float, float]:
        """Seconds of computation, and of summing gradients in a ring afterwards."""
        products = max(self.operations / (UTILIZATION * device.peak), self.bytes / device.memory)
        rate = device.inside if devices <= 8 else device.outside
        ring = 2 * (devices - 1) / devices * self.gradients / rate
        return products + self.executed * LAUNCH, ring


def step_cost(config: Config, objective: str, sizes: Sizes, encoder: keras.Model) -> StepCost:
    """Cost of a step with the encoder, whose last layers maximum likelihood trains."""
    settings = config.objective(objective)
    has_critic = settings.has_critic
    # With a critic, `self_critical` differs from `policy_gradient` only in its reward.
    name = "policy_gradient" if objective == "self_critical" and has_critic else objective
    cost = step(objective, sizes, has_critic)
    images = settings.images_per_step
    # The forward pass, and gradients of inputs and weights.
    times = 3 if objective == "maximum_likelihood" else 1
    weights = generator_weights(sizes)
    if times == 3:
        weights += sum(math.prod(variable.shape) for variable in encoder.trainable_variables)
    if has_critic:
        weights += sizes.critic_updates * critic_weights(sizes)
    return StepCost(
        images,
        cost.operations + times * images * convolutions(encoder.second),
        cost.bytes,
        EXECUTED[name] * sizes.words / EXECUTED_WORDS,
        FLOAT * weights,
    )


def main() -> None:
    """Reads the command line, prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fleet", type=int, default=64, help="GPUs of the fleet, 8 per machine")
    arguments = parser.parse_args()
    counts = (1, 8, arguments.fleet)
    for data in DATA_SETS:
        config = read_config([f"--config={data.config}"], parser.prog)
        # Only the encoder's sizes matter, not its weights.
        encoder = build_encoder(config.encoder, load_weights=False)
        images = data.captions // data.captions_per_image
        print(f"\n{data.name}, {data.captions:,} captions: minutes per pass over {images:,} images")
        print(f"{'':20}{'images':>8}{'Tflop':>8}{'executed':>10}", end="")
        print(*(f"{f'{devices} {device.name}':>13}" for device in DEVICES for devices in counts))
        for objective in EXECUTED:
            sizes = sizes_of(config, objective, data.vocabulary, *encoder.regions_shape)
            cost = step_cost(config, objective, sizes, encoder)
            print(f"{objective:20}{cost.images:8}{cost.operations / 1e12:8.2f}", end="")
            print(f"{cost.executed:10,.0f}", end="")
            for device in DEVICES:
                for devices in counts:
                    computing, ring = cost.seconds(device, devices)
                    total = computing + ring
                    minutes = math.ceil(images / cost.images / devices) * total / 60
                    print(f"{f'{minutes:.2f} ({ring / total:.0%})':>14}", end="")
            print()
        state = [training_state_bytes(sizes, has_critic) / 2**20 for has_critic in (False, True)]
        print(
            f"weights, gradients, optimizer: {state[0]:.0f} MiB, with a critic {state[1]:.0f} MiB"
        )


if __name__ == "__main__":
    main()
