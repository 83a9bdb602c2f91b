"""Prepares a data set: `python -m caption_gan.prepare --config configs/X.yaml [--to SHARDS]`.

Checks images and captions, computes the regions of a frozen encoder, and writes shards, a summary
of the data set (`summary.html`) and a list of what cannot be used (`skipped.jsonl`). `fit` finds
the shards in the cache or, after `--to`, by `--data.shards`. An interrupted preparation resumes
where it stopped, and several machines can share the work.
"""

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from itertools import islice

from caption_gan.command_line import run_program
from caption_gan.config.run import Config
from caption_gan.data.shards.files import PreparedSplit, Shard
from caption_gan.data.shards.prepare import Preparation
from caption_gan.data.shards.records import read_examples
from caption_gan.reporting.data_summary import overlaps, write_data_summary
from caption_gan.run import open_encoder
from caption_gan.settings import config_parser, merge_settings
from caption_gan.storage import filesystem
from caption_gan.storage.paths import expand

SHOWN_IMAGES = 24


def prepare(
    config: Config,
    directory: str | None = None,
    shard_index: int = 0,
    shard_count: int = 1,
    command: str = "python -m caption_gan.prepare",
) -> list[str]:
    """Prepares all splits of a data set, or one machine's share of them.

    Args:
        config: Settings of the data set and the encoder.
        directory: Folder for the shards; by default a folder in `data.cache`.
        shard_index: Number of this machine, from 0.
        shard_count: Number of machines. Each writes every `shard_count`-th shard of a split.
        command: Command line for the summary page.

    Returns:
        Lines to print.

    Raises:
        CaptionGANError: The data set cannot be read, or the shards cannot be written.
    """
    config, encoder = open_encoder(config)
    preparation = Preparation(config, encoder, directory)

    def is_wanted(shard: Shard) -> bool:
        is_mine = shard.number % shard_count == shard_index
        return is_mine and not shard.is_complete(verify_checksum=True)

    for split in preparation.splits:
        preparation.write(split, is_wanted)
    missing = [
        shard.path
        for split in preparation.splits
        for shard in preparation.shards(split)
        if not shard.is_complete()
    ]
    if missing:
        return [
            f"the shards of this machine are in {preparation.directory}; {len(missing)} shards of "
            f"other machines are still missing, for example {missing[0]}"
        ]
    splits = [preparation.prepared(split) for split in preparation.splits]
    return describe(config, preparation.directory, splits, command)


def describe(
    config: Config, directory: str, splits: Sequence[PreparedSplit], command: str
) -> list[str]:
    """Writes `summary.html` and `skipped.jsonl`, and returns their main points as lines."""
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
        title=f"{config.data.source}: {config.data.root or 'synthetic'}",
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
    notes = [line for split in splits for line in (*split.notes, *split.skipped)]
    return [
        *counts,
        *dict.fromkeys(notes),
        *overlaps(splits),
        f"summary:  {page}",
        "training: run caption_gan.fit with the same settings and "
        f"--data.shards {shlex.quote(directory)}",
    ]


def main() -> None:
    """Runs the program."""
    parser = config_parser("python -m caption_gan.prepare", (__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--to", type=expand, help="folder for the shards; default: a folder in data.cache"
    )
    parser.add_argument("--shard_index", type=int, default=0, help="number of this machine, from 0")
    parser.add_argument("--shard_count", type=int, default=1, help="number of machines")
    arguments, config = merge_settings(parser, sys.argv[1:])
    if not 0 <= arguments.shard_index < arguments.shard_count:
        parser.error(
            f"--shard_index {arguments.shard_index} and --shard_count {arguments.shard_count}: "
            "expected 0 <= shard_index < shard_count"
        )
    command = shlex.join(["python", "-m", "caption_gan.prepare", *sys.argv[1:]])
    lines = prepare(config, arguments.to, arguments.shard_index, arguments.shard_count, command)
    print("\n".join(lines))


if __name__ == "__main__":
    run_program(main)
