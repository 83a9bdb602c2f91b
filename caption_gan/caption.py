"""Captions image files: `python -m caption_gan.caption RUN IMAGE... [--n 5] [--json]`."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf
from jsonargparse.typing import PositiveFloat, PositiveInt

from caption_gan.command_line import FAILED, ArgumentParser, run_program
from caption_gan.data.images import decode_and_resize, is_image
from caption_gan.errors import CaptionGANError
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.run import load_run


def read_images(paths: list[str], height: int, width: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Reads image files.

    Returns:
        Pixels uint8 [height, width, 3] by path, and what is wrong with the other paths.
    """
    images, errors = {}, {}
    for path in paths:
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            errors[path] = f"cannot be read: {error.strerror}"
            continue
        if is_image(content):
            images[path] = decode_and_resize(content, height, width)
        else:
            errors[path] = "is no image that can be decoded; give PNG, JPEG, GIF, BMP or WebP"
    return images, errors


def main() -> None:
    """The program."""
    parser = ArgumentParser(
        prog="python -m caption_gan.caption", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("run", metavar="RUN", help="run directory that fit wrote")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="PNG, JPEG, GIF, BMP or WebP")
    parser.add_argument(
        "--n", type=PositiveInt, default=5, help="captions an image: the likeliest, then samples"
    )
    parser.add_argument(
        "--temperature", type=PositiveFloat, default=0.8, help="of samples; lower is safer"
    )
    parser.add_argument(
        "--beam", type=PositiveInt, default=1, help="width of a beam search instead of samples"
    )
    parser.add_argument("--seed", type=int, default=0, help="of samples")
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    arguments = parser.parse_args()

    config, tokenizer, captioner = load_run(arguments.run)
    if not captioner.encoder.needs_pixels:
        raise CaptionGANError(
            f"{arguments.run} was trained on precomputed regions and cannot look at an image; "
            "`python -m caption_gan.evaluate` captions the images of its data set."
        )
    images, errors = read_images(
        arguments.images, config.encoder.image_height, config.encoder.image_width
    )
    settings = dataclasses.replace(
        config.decoding,
        samples=max(arguments.n - 1, 1),
        temperature=arguments.temperature,
        beam=arguments.beam,
        beam_groups=math.gcd(arguments.beam, config.decoding.beam_groups),
    )
    decoder = TextDecoder(captioner, tokenizer, settings, arguments.seed)
    captions: dict[str, list[tuple[str, float]]] = {}
    # One image at a time: its samples then depend on the seed and on nothing else.
    for path, pixels in images.items():
        ((written, _, _),) = decoder.describe({"image": tf.expand_dims(pixels, 0)}, 0)
        sampled = sorted(written["sample"], key=lambda pair: -pair[1])
        captions[path] = written.get("beam", written["greedy"] + sampled)[: arguments.n]

    if arguments.json:
        rows = [_to_json(path, captions, errors) for path in arguments.images]
        print(json.dumps({"images": rows}))
    else:
        for path, pairs in captions.items():
            print(path)
            for caption, score in pairs:
                print(f"  {score:7.3f}  {caption}")
    for path, error in errors.items():
        print(f"{path} {error}", file=sys.stderr)
    if errors:
        sys.exit(FAILED)


def _to_json(path: str, captions: dict, errors: dict) -> dict[str, Any]:
    if path in errors:
        return {"image": path, "error": errors[path]}
    pairs = [{"caption": caption, "score": score} for caption, score in captions[path]]
    return {"image": path, "captions": pairs}


if __name__ == "__main__":
    run_program(main)
