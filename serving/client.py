"""Captions image files: `python -m serving.client IMAGE... [--signature sample --n 3] [--rest]`.

To write your own client, copy `connect_grpc`, `caption_images` and what they import. They need
grpcio, protobuf and NumPy, but not TensorFlow.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# gRPC reads this when it is imported; by default it logs every failed handshake.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from caption_gan import signature as names
from serving.connections import Predict, connect_grpc, connect_rest
from serving.errors import ServingError

BATCH = 32  # Images per request; max_batch_size of `fleet/batching.config`.
GRPC_ADDRESS, REST_ADDRESS = "localhost:8500", "http://localhost:8501"
SAMPLING_INPUTS = (names.TEMPERATURE, names.TOP_P, names.SEED)


def caption_images(
    predict: Predict,
    images: Sequence[bytes],
    signature: str = names.DEFAULT,
    model: str = "captioner",
    timeout: float = 10.0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Captions encoded images in one request.

    Args:
        predict: What `connect_grpc` or `connect_rest` returns.
        images: Encoded images, at least one.
        signature: A signature that takes `image_bytes`; see `caption_gan/signature.py`.
        model: Name of the model on the server.
        timeout: In seconds.
        temperature: For the signature `sample`; ignored otherwise.
        top_p: For the signature `sample`; ignored otherwise.
        seed: For the signature `sample`; ignored otherwise.

    Returns:
        One row per image: outputs by name, each a `str`, a number or an array. If an image cannot
        be captioned, the `error` of its row says why; otherwise it is empty.

    Raises:
        ServingError: The server did not answer, or its model is not a captioner.
    """
    inputs: dict[str, Sequence[Any]] = {names.IMAGE_BYTES: images}
    if signature == names.SAMPLE:
        rows = len(images)
        inputs[names.TEMPERATURE] = [float(temperature)] * rows
        inputs[names.TOP_P] = [float(top_p)] * rows
        inputs[names.SEED] = [seed] * rows
    outputs = predict(model, signature, inputs, timeout)
    if np.shape(outputs.get(names.ERROR, ())) != (len(images),):
        raise ServingError(
            f"The model {model} is not a captioner: its outputs are {', '.join(outputs)}."
        )
    return [{name: rows[row] for name, rows in outputs.items()} for row in range(len(images))]


def main() -> None:
    """The program."""
    arguments = _parse()
    results = []
    try:
        for result in _caption_files(arguments):
            results.append(result)
            if "error" in result:
                print(f"{result['image']}: {result['error']}", file=sys.stderr)
            elif not arguments.json:
                _print(**result)
    except (ServingError, KeyboardInterrupt) as error:
        sys.exit(f"error: {str(error) or 'interrupted'}")
    if arguments.json:
        print(json.dumps({"images": results}))
    sys.exit(1 if any("error" in result for result in results) else 0)


def _caption_files(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields `image` and its `captions` or `error` for each file."""
    connect = connect_rest if arguments.rest else connect_grpc
    address = arguments.rest or arguments.server
    predict = connect(address, arguments.ca, arguments.cert, arguments.key)
    sampling = {name: getattr(arguments, name) for name in SAMPLING_INPUTS if name in arguments}
    for start in range(0, len(arguments.images), BATCH):
        paths = arguments.images[start : start + BATCH]
        results = {path: {"image": path} for path in paths}
        contents = {}
        for path in paths:
            try:
                contents[path] = Path(path).read_bytes()
            except OSError as error:
                results[path]["error"] = f"cannot be read: {error.strerror}"
        if contents:
            images = list(contents.values())
            options = (arguments.signature, arguments.model, arguments.timeout)
            rows = caption_images(predict, images, *options, **sampling)
            for path, row in zip(contents, rows, strict=True):
                results[path] |= _captions(row, arguments.n)
        yield from (results[path] for path in paths)


def _captions(row: Mapping[str, Any], n: int | None) -> dict[str, Any]:
    if row[names.ERROR]:
        return {"error": row[names.ERROR]}
    if names.CAPTION in row:
        pairs = [(row[names.CAPTION], row[names.SCORE])]
    else:
        pairs = list(zip(row[names.CAPTIONS], row[names.SCORES], strict=True))[:n]
    captions = [{"caption": caption, "score": float(score)} for caption, score in pairs]
    return {"captions": captions}


def _print(image: str, captions: list[dict[str, Any]]) -> None:
    for row in captions:
        score = f" ({row['score']:.3f})" if len(captions) > 1 else ""
        print(f"{image}: {row['caption']}{score}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.client", description=(__doc__ or "").splitlines()[0]
    )
    add, unset = parser.add_argument, argparse.SUPPRESS
    expand = os.path.expanduser
    add("images", nargs="+", metavar="IMAGE", type=expand, help="PNG, JPEG, GIF, BMP or WebP")
    add(
        "--signature",
        choices=(names.DEFAULT, names.SAMPLE, names.BEAM),
        default=names.DEFAULT,
        help="how to decode; serving_default is greedy (default: %(default)s)",
    )
    add("--temperature", type=within(1e-3, 1e3), default=unset, help="of samples (default: 1)")
    add("--top_p", type=within(1e-3, 1), default=unset, help="of samples (default: 1)")
    add("--seed", type=within(-(2**63), 2**63 - 1), default=unset, help="of samples (default: 0)")
    add(
        "--n",
        type=within(1, 2**31),
        help="print the first n captions of sample or beam (default: all)",
    )
    add("--json", action="store_true", help="print only one JSON object")
    add("--model", default="captioner", help="name on the server (default: %(default)s)")
    add(
        "--timeout",
        type=within(1e-3, 1e6),
        default=10.0,
        help="seconds per request (default: %(default)g)",
    )
    api = parser.add_mutually_exclusive_group()
    api.add_argument(
        "--server",
        default=GRPC_ADDRESS,
        help="HOST:PORT or unix:PATH of gRPC (default: %(default)s)",
    )
    api.add_argument(
        "--rest",
        nargs="?",
        const=REST_ADDRESS,
        metavar="URL",
        help=f"use REST (default URL: {REST_ADDRESS})",
    )
    add("--ca", metavar="FILE", type=expand, help="CA certificate (PEM); turns on TLS")
    add(
        "--cert",
        metavar="FILE",
        type=expand,
        help="client certificate (PEM), if the server requires one",
    )
    add("--key", metavar="FILE", type=expand, help="private key of --cert (PEM)")
    arguments = parser.parse_args()

    if arguments.signature != names.SAMPLE and any(name in arguments for name in SAMPLING_INPUTS):
        parser.error("--temperature, --top_p and --seed are for --signature sample")
    if arguments.signature == names.DEFAULT and arguments.n:
        parser.error("--n is for --signature sample or beam; serving_default gives one caption")
    if bool(arguments.cert) != bool(arguments.key):
        parser.error("--cert needs --key, and --key needs --cert")
    if arguments.rest and not arguments.rest.startswith(("http://", "https://")):
        parser.error(f"--rest takes a URL such as {REST_ADDRESS}; give images before --rest")
    is_plain_http = arguments.rest and not arguments.rest.startswith("https://")
    if is_plain_http and (arguments.ca or arguments.cert):
        parser.error("--ca and --cert need an https:// URL with --rest")
    return arguments


def within(low: float, high: float) -> Callable[[str], float]:
    """A parser of numbers from `low` to `high`, of the type of `low`."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low <= (value := type(low)(text)) <= high:
                return value
        kind = "an integer" if isinstance(low, int) else "a number"
        raise argparse.ArgumentTypeError(f"expected {kind} from {low} to {high}, got {text}")

    return parse


if __name__ == "__main__":
    main()
