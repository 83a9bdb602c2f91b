"""Checks the formulas of `step_costs.py`: `python tools/count_operations.py`.

Runs a training step of each objective at three sizes under TensorFlow's tracer, which records every
executed operation, including each iteration of a loop, with the shapes of its outputs. Prints the
operations of matrix products by formula and as executed, the ratio of both, the ratio of their
bytes, the number of executed operations of any kind, and the number of those in recurrences.
Accepts any setting of a run, such as `--maximum_likelihood.matrix_learning_rate 0`.
"""

import argparse
import math
import re
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from random_trainer import random_examples, random_trainer, sizes_of
from step_costs import FLOAT, Cost, Sizes, step

from caption_gan.config.objectives import OBJECTIVES
from caption_gan.config.run import Config
from caption_gan.settings import read_config

v1 = tf.compat.v1
PRODUCT = re.compile(r"MatMul(V\d)?$")
# Operations that compute nothing.
VALUES = {"Const", "Identity", "IdentityN", "NoOp", "VarHandleOp", "ReadVariableOp"}
ARGUMENTS = {"_Arg", "_Retval"}
CONTROL_FLOW = {"Enter", "Exit", "Merge", "NextIteration", "Switch", "LoopCond"}
SHAPES = {"Reshape", "Shape", "Squeeze", "ExpandDims"}
IDLE = VALUES | ARGUMENTS | CONTROL_FLOW | SHAPES
SETTINGS = {
    "tiny": "--generator.embedding_size=6 --generator.hidden_size=8 --generator.attention_heads=2"
    " --generator.noise_size=3 --text.sequence_length=5",
    "default": "",
    "photographs": "--generator.embedding_size=300 --generator.hidden_size=512"
    " --generator.attention_heads=4 --text.sequence_length=9"
    " --maximum_likelihood.matrix_learning_rate=0",
}
# Images, captions, critic updates. Batches are small, because the formulas are linear in them.
# Captions of the largest network are short, because TensorFlow builds graphs of many words slowly.
BATCHES = {"tiny": (2, 2, 2), "default": (4, 2, 5), "photographs": (2, 5, 2)}
VOCABULARY_REGIONS_DEPTH = {
    "tiny": (19, 7, 10),
    "default": (1000, 64, 80),
    "photographs": (10000, 49, 1280),
}


class Counted(NamedTuple):
    """What one step executed."""

    products: Cost
    executed: int  # Operations of any kind.
    recurrent: int  # Operations of the recurrences.


def configuration(size: str, objective: str, settings: Sequence[str] = ()) -> Config:
    """Settings of one of the three sizes, with further command-line settings."""
    images, captions, updates = BATCHES[size]
    arguments = [
        *SETTINGS[size].split(),
        f"--{objective}.batch_size={images}",
        f"--{objective}.captions={captions}",
    ]
    if objective not in ("maximum_likelihood", "self_play"):
        # Without a warm-up the first step trains the generator too.
        arguments.append(f"--{objective}.critic_updates={updates}")
        arguments.append(f"--{objective}.critic_warmup_steps=0")
    return read_config([*arguments, *settings], "count_operations")


def formula(config: Config, objective: str, sizes: Sizes) -> Cost:
    """Cost of a step by the formulas."""
    settings = config.objective(objective)
    return step(
        objective,
        sizes,
        has_critic=settings.has_critic,
        muon=getattr(settings, "matrix_learning_rate", 0) > 0,
    )


def traced_step(model: keras.Model, examples: dict[str, np.ndarray]) -> Any:
    """TensorFlow's record of one training step.

    Only sessions keep shapes in it, so the step is exported and run in one. As in training, nothing
    optimizes its graph; calls of functions are only replaced by what they call.
    """
    module = tf.Module()

    @tf.function(
        input_signature=[
            {name: tf.TensorSpec(part.shape, part.dtype, name) for name, part in examples.items()}
        ]
    )
    def train_step(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"loss": model.train_step(batch)["loss"]}

    module.train_step = train_step
    module.needed = train_step.get_concrete_function().variables
    record = v1.RunMetadata()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=train_step)
        options = v1.ConfigProto()
        options.graph_options.rewrite_options.optimizers.append("function")
        with v1.Session(graph=tf.Graph(), config=options) as session:
            loaded = v1.saved_model.load(session, ["serve"], folder)
            signature = loaded.signature_def["serving_default"]
            session.run(
                signature.outputs["loss"].name,
                {signature.inputs[name].name: part for name, part in examples.items()},
                v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE, output_partition_graphs=True),
                record,
            )
    return record


def count(record: Any) -> Counted:
    """Sums the operations in a record of TensorFlow's tracer."""
    nodes = {node.name: node for graph in record.partition_graphs for node in graph.node}
    executed = [entry for device in record.step_stats.dev_stats for entry in device.node_stats]
    shapes: dict[tuple[str, int], list[int]] = {}
    for entry in executed:
        for output in entry.output:
            shape = [dimension.size for dimension in output.tensor_description.shape.dim]
            shapes[entry.node_name, output.slot] = shape
    operations, bytes_moved = 0.0, 0.0
    working = []
    for entry in executed:
        node = nodes.get(entry.node_name)
        if node is None or node.op in IDLE:
            continue
        working.append(node.name)
        # Kernels for one kind of processor, or with a fused activation, have a prefix: _MklMatMul.
        if not PRODUCT.search(node.op):
            continue
        transposed = node.attr["transpose_a"].b or node.attr["adj_x"].b
        left, right = (
            shapes[name, int(slot or 0)]
            for name, _, slot in (factor.partition(":") for factor in node.input[:2])
        )
        written = shapes[entry.node_name, 0]
        operations += 2 * math.prod(written) * left[-2 if transposed else -1]
        bytes_moved += FLOAT * sum(map(math.prod, (left, right, written)))
    recurrent = sum("reader" in name or "writer" in name for name in working)
    return Counted(Cost(operations, bytes_moved), len(working), recurrent)


def compare(size: str, objective: str, settings: Sequence[str] = ()) -> tuple[Cost, Counted]:
    """Cost of a step by the formulas, and as executed."""
    vocabulary, regions, depth = VOCABULARY_REGIONS_DEPTH[size]
    config = configuration(size, objective, settings)
    examples = random_examples(config, objective, vocabulary, regions, depth)
    model = random_trainer(config, objective, vocabulary, examples)
    sizes = sizes_of(config, objective, vocabulary, regions, depth)
    return formula(config, objective, sizes), count(traced_step(model, examples))


def main() -> None:
    """Reads the command line, prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    arguments, settings = parser.parse_known_args()
    print(f"{'':32}Mflop: formula  counted   ratio   bytes  executed  recurrent")
    for size in arguments.sizes:
        for objective in arguments.objectives:
            expected, counted = compare(size, objective, settings)
            ratios = (
                formed / found for formed, found in zip(expected, counted.products, strict=True)
            )
            print(
                f"{objective:20}{size:12}{expected.operations / 1e6:14.2f}"
                f"{counted.products.operations / 1e6:9.2f}"
                + "".join(f"{ratio:8.4f}" for ratio in ratios)
                + f"{counted.executed:10,}{counted.recurrent:11,}",
                flush=True,
            )


if __name__ == "__main__":
    main()
