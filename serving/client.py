"""Captions image files: `python -m serving.client IMAGE... [--signature sample --n 3] [--rest]`.

A client of one's own needs `connect_grpc`, `caption_images` and what they import: grpcio, protobuf
and NumPy, and no TensorFlow.
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

# Read when gRPC is imported, which of its own accord writes about every handshake.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from caption_gan import signature as names
from serving.connections import Predict, connect_grpc, connect_rest
from serving.errors import ServingError

BATCH = 32  # Images a request; `fleet/batching.config` takes as many.
GRPC, REST = "localhost:8500", "http://localhost:8501"
SAMPLING = (names.TEMPERATURE, names.TOP_P, names.SEED)


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
        predict: Of `connect_grpc` or `connect_rest`.
        images: At least one.
        signature: One that takes `image_bytes`; see `caption_gan/signature.py`.
        model: Its name on the server.
        timeout: Seconds.
        temperature: Of samples, as are `top_p` and `seed`; other signatures ignore them.

    Returns:
        A row an image: outputs by name, each a `str`, a number or an array. What is wrong with an
        image is the `error` of its row.

    Raises:
        ServingError: No answer, or none that a captioner gives.
    """
    inputs: dict[str, Sequence[Any]] = {names.IMAGE_BYTES: images}
    if signature == names.SAMPLE:
        for name, value in zip(SAMPLING, (float(temperature), float(top_p), seed), strict=True):
            inputs[name] = [value] * len(images)
    outputs = predict(model, signature, inputs, timeout)
    if np.shape(outputs.get(names.ERROR, ())) != (len(images),):
        raise ServingError(f"{model} answers as no captioner does: with {', '.join(outputs)}.")
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
    """`image` and its `captions` or `error`, of each file."""
    connect = connect_rest if arguments.rest else connect_grpc
    address = arguments.rest or arguments.server
    predict = connect(address, arguments.ca, arguments.cert, arguments.key)
    sampling = {name: getattr(arguments, name) for name in SAMPLING if name in arguments}
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
    add, left_out = parser.add_argument, argparse.SUPPRESS
    add("images", nargs="+", metavar="IMAGE", help="PNG, JPEG, GIF, BMP or WebP")
    add("--signature", choices=(names.DEFAULT, names.SAMPLE, names.BEAM), default=names.DEFAULT)
    add("--temperature", type=within(1e-3, 1e3), default=left_out, help="of samples; 1")
    add("--top_p", type=within(1e-3, 1), default=left_out, help="of samples; 1")
    add("--seed", type=within(-(2**63), 2**63 - 1), default=left_out, help="of samples; 0")
    add("--n", type=within(1, 2**31), help="the first captions of sample or beam; all")
    add("--json", action="store_true", help="print one JSON object and no more")
    add("--model", default="captioner", help="its name on the server; %(default)s")
    add("--timeout", type=within(1e-3, 1e6), default=10.0, help="seconds a request; %(default)g")
    api = parser.add_mutually_exclusive_group()
    api.add_argument("--server", default=GRPC, help="HOST:PORT or unix:PATH, gRPC; %(default)s")
    api.add_argument("--rest", nargs="?", const=REST, metavar="URL", help=f"REST instead; {REST}")
    add("--ca", metavar="FILE", help="PEM of who vouches for the server; asks for TLS")
    add("--cert", metavar="FILE", help="PEM of who you are, where the server asks for it")
    add("--key", metavar="FILE", help="PEM of its key")
    arguments = parser.parse_args()

    if arguments.signature != names.SAMPLE and any(name in arguments for name in SAMPLING):
        parser.error("--temperature, --top_p and --seed are for --signature sample")
    if arguments.signature == names.DEFAULT and arguments.n:
        parser.error("--n is for --signature sample or beam; serving_default gives one caption")
    if bool(arguments.cert) != bool(arguments.key):
        parser.error("--cert and --key are of use together only")
    if arguments.rest and not arguments.rest.startswith(("http://", "https://")):
        parser.error(f"--rest takes an address such as {REST}; give images before it")
    plain = arguments.rest and not arguments.rest.startswith("https://")
    if plain and (arguments.ca or arguments.cert):
        parser.error("--ca and --cert with --rest need an https:// address")
    return arguments


def within(least: float, most: float) -> Callable[[str], float]:
    """A number of the kind of `least`."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= (value := type(least)(text)) <= most:
                return value
        raise argparse.ArgumentTypeError(f"{text} is no number from {least} to {most}")

    return read


if __name__ == "__main__":
    main()
