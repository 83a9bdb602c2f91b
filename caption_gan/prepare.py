"""Prepares a data set: `python -m caption_gan.prepare --config configs/X.yaml [--to SHARDS]`.

Checks images and captions, computes the regions of a frozen encoder, and writes shards, a page
`summary.html` to look at before training, and `skipped.jsonl`. `fit` finds the shards in the cache
or, with `--to`, by `--data.shards`. A preparation that was stopped goes on where it was; several
machines can share it.
"""

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from itertools import islice

from caption_gan.command_line import run_program
from caption_gan.config.checks import check
from caption_gan.config.run import Config
from caption_gan.data.shards.files import PreparedSplit, Shard
from caption_gan.data.shards.prepare import Preparation
from caption_gan.data.shards.records import read_examples
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.reporting.data_summary import overlaps, write_data_summary
from caption_gan.run import config_from, config_parser
from caption_gan.storage import filesystem

SHOWN_IMAGES = 24


def prepare(
    config: Config,
    directory: str | None = None,
    shard_index: int = 0,
    shard_count: int = 1,
    command: str = "python -m caption_gan.prepare",
) -> list[str]:
    """Prepares all splits of a data set, or a machine's part of them.

    Args:
        config: Settings of the data and the encoder.
        directory: Where the shards go; in the cache if it is not given.
        shard_index: Number of this machine.
        shard_count: Number of machines. Each writes every `shard_count`-th shard of a split.
        command: How to do it again, for the page.

    Returns:
        Lines to print.

    Raises:
        CaptionGANError: The data cannot be read or the shards cannot be written.
    """
    preparation = Preparation(config, build_encoder(config.encoder), directory)

    def is_wanted(shard: Shard) -> bool:
        return shard.number % shard_count == shard_index and not shard.is_whole(thorough=True)

    for split in preparation.splits:
        preparation.write(split, is_wanted)
    missing = [
        shard.path
        for split in preparation.splits
        for shard in preparation.shards(split)
        if not shard.is_whole()
    ]
    if missing:
        return [
            f"this machine's shards are in {preparation.directory}; {len(missing)} shards of other "
            f"machines are not there yet, such as {missing[0]}"
        ]
    splits = [preparation.prepared(split) for split in preparation.splits]
    return describe(config, preparation.directory, splits, command)


def describe(
    config: Config, directory: str, splits: Sequence[PreparedSplit], command: str
) -> list[str]:
    """Writes `summary.html` and `skipped.jsonl` and returns what they say in short."""
    skipped = [
        {"split": split.split, **dataclasses.asdict(skip)}
        for split in splits
        for skip in split.skips
    ]
    lines = [json.dumps(skip, ensure_ascii=False) + "\n" for skip in skipped]
    filesystem.write_text(filesystem.join(directory, "skipped.jsonl"), "".join(lines))
    page = filesystem.join(directory, "summary.html")
    write_data_summary(
        page,
        title=f"{config.data.source}: {config.data.root or 'drawn'}",
        command=command,
        splits=splits,
        samples=list(islice(read_examples(splits[0]), SHOWN_IMAGES)),
        minimum_count=config.text.minimum_count,
        sequence_length=config.text.sequence_length,
    )
    counts = [
        f"{split.split}: {split.images} images, "
        f"{sum(len(image.captions) for image in split.index)} captions"
        for split in splits
    ]
    notes = [line for split in splits for line in split.skipped]
    return [
        *counts,
        *dict.fromkeys(notes),
        *overlaps(splits),
        f"summary:  {page}",
        f"training: python -m caption_gan.fit with these settings and --data.shards {directory}",
    ]


def main() -> None:
    """The program."""
    parser = config_parser("python -m caption_gan.prepare", (__doc__ or "").splitlines()[0])
    parser.add_argument("--to", help="folder for the shards; default: in data.cache")
    parser.add_argument("--shard_index", type=int, default=0, help="number of this machine, from 0")
    parser.add_argument("--shard_count", type=int, default=1, help="number of machines")
    arguments = parser.parse_args()
    config = config_from(parser, arguments)
    check(config)
    if not 0 <= arguments.shard_index < arguments.shard_count:
        parser.error(
            f"--shard_index {arguments.shard_index} and --shard_count {arguments.shard_count}: "
            "expected an index from 0 to below the count"
        )
    directory = filesystem.resolve(arguments.to) if arguments.to else None
    command = shlex.join(["python", "-m", "caption_gan.prepare", *sys.argv[1:]])
    part = arguments.shard_index, arguments.shard_count
    print("\n".join(prepare(config, directory, *part, command)))


if __name__ == "__main__":
    run_program(main)
