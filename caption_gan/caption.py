"""Captions image files: `python -m caption_gan.caption RUN IMAGE... [--n 5] [--json]`."""

import json
import sys
from typing import Any

from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt

from caption_gan.command_line import FAILED, ArgumentParser, run_program
from caption_gan.data.image_inputs import encode_image
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.changed_settings import add_settings, given_settings
from caption_gan.evaluation.loaded_captioners import load_captioner
from caption_gan.evaluation.trained_captioner import Caption

# Settings that have flags of their own here, or that do not apply to a single image.
NOT_SETTINGS = frozenset(
    f"decoding.{name}" for name in ("samples", "temperature", "top_p", "beam", "batch_size")
)


def main() -> None:
    """Captions the files that the command line names and prints the captions."""
    parser = ArgumentParser(
        prog="python -m caption_gan.caption", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("run", metavar="RUN", help="run directory, or SavedModel")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="PNG, JPEG, GIF, BMP or WebP")
    parser.add_argument(
        "--n",
        "--decoding.samples",
        type=PositiveInt,
        default=5,
        help="captions per image: the likeliest, then samples",
    )
    parser.add_argument(
        "--temperature",
        "--decoding.temperature",
        type=PositiveFloat,
        default=0.8,
        help="of samples; lower is safer",
    )
    parser.add_argument(
        "--top_p",
        "--decoding.top_p",
        type=ClosedUnitInterval | None,
        help="sample from the likeliest words that together have this probability; if not given, "
        "the run's setting",
    )
    parser.add_argument(
        "--beam",
        "--decoding.beam",
        type=PositiveInt,
        default=1,
        help="width of a beam search instead of samples",
    )
    parser.add_argument("--seed", type=int, default=0, help="of samples")
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    add_settings(parser, ["decoding"], skip=NOT_SETTINGS)
    arguments = parser.parse_args()

    changes = given_settings(arguments)
    if any(change.startswith("--decoding.beam_groups=") for change in changes):
        changes.append(f"--decoding.beam={arguments.beam}")  # decoding.beam_groups must divide it.
    captioner = load_captioner(arguments.run, changes)
    captions: dict[str, list[Caption]] = {}
    errors: dict[str, str] = {}
    for path in dict.fromkeys(arguments.images):
        try:
            image = encode_image(path)
        except CaptionGANError as error:
            errors[path] = str(error)
            continue
        captions[path] = captioner.caption(
            image,
            n=arguments.n,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            beam=arguments.beam,
            seed=arguments.seed,
        )

    if arguments.json:
        rows = [_to_json(path, captions, errors) for path in arguments.images]
        print(json.dumps({"images": rows}))
    else:
        for path, of_image in captions.items():
            print(path)
            for caption in of_image:
                print(f"  {caption.score:7.3f}  {caption.text}")
    for path, message in errors.items():
        print(f"{path} {message}", file=sys.stderr)
    if errors:
        sys.exit(FAILED)


def _to_json(
    path: str, captions: dict[str, list[Caption]], errors: dict[str, str]
) -> dict[str, Any]:
    """The JSON object of one image."""
    if path in errors:
        return {"image": path, "error": errors[path]}
    pairs = [{"caption": caption.text, "score": caption.score} for caption in captions[path]]
    return {"image": path, "captions": pairs}


if __name__ == "__main__":
    run_program(main)
