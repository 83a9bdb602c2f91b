"""Settings of data sets."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    extend_base_type,
    restricted_number_type,
    restricted_string_type,
)

from caption_gan.config.paths import DEFAULT_CACHE, CachePath, PathOrName, UserPath


def check_encoding(name: str) -> None:
    """Raises a ValueError if Python has no text encoding of this name."""
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        raise ValueError(
            f"expected a text encoding that Python knows, e.g. cp1252, shift_jis or utf-16-le; "
            f"got {name}"
        ) from None


if TYPE_CHECKING:
    HeldOut = float
    Address = str
    Encoding = str
else:
    Address = restricted_string_type(
        "Address", r"^[^\s/]+:\d+$", "host and port, e.g. input-dispatcher:5050"
    )
    Encoding = extend_base_type("Encoding", str, lambda _, name: check_encoding(name))
    HeldOut = restricted_number_type("HeldOut", float, [(">=", 0), ("<", 0.5)])


@dataclass(frozen=True)
class SciCapConfig:
    """Which part of SciCap is used.

    Attributes:
        collection: Figures to use, from the lists of the release: all whose caption has a first
            sentence, those with a single sentence, or those with at most 100 tokens.
        subfigures: Use the figures with subfigures instead of those without.
        text: Form of the captions. `original`: as in the paper. `lower_case`: lower-cased,
            tokenized and without "Figure 2:". `num_tk`: also with numbers as NUM-TK.
            `bracket_tk`: also with brackets and equations as BRACKET-TK and EQUAT-TK.
        caption: Use the first sentence of a caption, or the whole caption.
    """

    collection: Literal["first_sentence", "single_sentence", "at_most_100_tokens"] = (
        "first_sentence"
    )
    subfigures: bool = False
    text: Literal["original", "lower_case", "num_tk", "bracket_tk"] = "lower_case"
    caption: Literal["first_sentence", "whole"] = "first_sentence"


@dataclass(frozen=True)
class HuggingFaceConfig:
    """How a data set of the Hugging Face Hub, or one in its formats on disk, is read.

    Attributes:
        name: Name of the configuration, for data sets with several.
        revision: Branch, tag or commit on the Hub; default: the newest.
        streaming: Read examples from the Hub when they are needed, without a copy of the whole
            data set on disk.
        image_column: Column of the image; needed only if there are several.
        caption_columns: Columns of captions, each a text or a list of texts; needed only if none
            is called `caption`, `captions`, `text`, `sentence` or `sentences`.
        id_column: Column that names the image, for data sets with one row per caption: rows with
            the same name belong to one image. Without it, only rows with the path of the same file
            do.
    """

    name: str | None = None
    revision: str | None = None
    streaming: bool = False
    image_column: str | None = None
    caption_columns: list[str] = field(default_factory=list)
    id_column: str | None = None


@dataclass(frozen=True)
class DataConfig:
    """Where images and captions come from.

    Attributes:
        source: Layout of the data set. `figures` and `scenes` are drawn by the program and need
            no `root`. `flickr`: the folder of Flickr8k or Flickr30k. `coco`: COCO 2014 or 2017, or
            captions in its format. `scicap`: SciCap or FigCaps-HF as released. `hugging_face`: a
            data set on the Hub, or Parquet files. `folder`: images with `metadata.jsonl` or
            `metadata.csv`. `features`: regions in `features.npy` with `captions.en`.
        root: Folder of the data set, which may be on `gs://`; for `hugging_face` also a name on
            the Hub.
        karpathy: File of Karpathy's splits (`dataset_coco.json`, `dataset_flickr8k.json`), which
            replace the official ones; for `coco` and `flickr`.
        split_column: Column that says the split of a row (train, val, test), for `folder`,
            `hugging_face`, `flickr` and `coco`, where it is a key of the images. Needed only if
            several columns could be meant; found by name and values otherwise.
        held_out: Share of the images for `val`, and again for `test`, if the data set has no
            splits; at least one image each, unless it is 0.
        corpora: Files of text without images, one sentence per line or JSON Lines: more real
            captions for a critic (`unconditional_share` of the objectives).
        encoding: Encoding of captions, lists and corpora that are not UTF-8, such as `cp1252` or
            `shift_jis`. Files in UTF-8, or with a byte-order mark, are read without it.
        scicap: Settings of the layout `scicap`.
        hugging_face: Settings of the layout `hugging_face`.
        cache: Folder of prepared shards, shared by all runs.
        shards: Folder that `caption_gan.prepare --to` has filled; these shards are used and
            nothing is prepared.
        gzip: Compress shards, which may pay if they hold regions.
        train_images: Training images to draw. More images and fewer epochs take the same time and
            reduce overfitting.
        val_images: Validation images to draw; with 1,000 the standard error of an accuracy of
            0.95 is 0.007.
        test_images: Test images to draw.
        seed: Seed of the drawn images. Runs that differ only in their own `seed` share the data.
        captions_per_image: Captions drawn per image, and references used per image in validation;
            the usual data sets have five.
        memory_limit_gib: Keep decoded examples in memory if they fit into this many GiB, else
            read them again in each epoch.
        service: Host and port of the dispatcher of a tf.data service
            (`caption_gan.input_server`), such as `input-dispatcher:5050`. Its workers prepare the
            training batches for a host that cannot feed its accelerators. They must reach the
            shards by the same path: a shared folder or `gs://`. Examples are not kept in memory.
            Batches of several workers arrive in no fixed order: a continued run restores the
            weights and states of the interrupted one but goes on with other batches, and may see
            some images of the epoch twice.
    """

    source: Literal[
        "figures", "scenes", "flickr", "coco", "scicap", "hugging_face", "folder", "features"
    ] = "figures"
    root: PathOrName | None = None
    karpathy: UserPath | None = None
    split_column: str | None = None
    held_out: HeldOut = 0.05
    corpora: list[UserPath] = field(default_factory=list)
    encoding: Encoding = "utf-8"
    scicap: SciCapConfig = field(default_factory=SciCapConfig)
    hugging_face: HuggingFaceConfig = field(default_factory=HuggingFaceConfig)
    cache: CachePath = DEFAULT_CACHE
    shards: UserPath | None = None
    gzip: bool = False
    train_images: PositiveInt = 12000
    val_images: PositiveInt = 1000
    test_images: PositiveInt = 1000
    seed: NonNegativeInt = 0
    captions_per_image: PositiveInt = 5
    memory_limit_gib: NonNegativeFloat = 6.0
    service: Address | None = None
