"""The page to look at before training: what the splits hold, and what is wrong with them.

Nothing outside the file is needed to read it: no script, font, picture or address.

Shapes: N captions, W words of all captions one after another.
"""

import base64
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import markupsafe
import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.ticker import PercentFormatter
from PIL import Image

from caption_gan.data.example import Example
from caption_gan.data.shards.files import IndexedImage, PreparedSplit
from caption_gan.data.skips import NAMES_SHOWN
from caption_gan.reporting.curves import INK, STYLE, TRAINING, VALIDATION, new_axes, to_svg
from caption_gan.reporting.pages import new_environment
from caption_gan.reporting.pictures import read_picture
from caption_gan.storage import filesystem
from caption_gan.text.vocabulary import count_words, split_words

_MINIMUM_COUNTS = (1, 2, 3, 5, 10, 20)
_FREQUENT = 40
_SAMPLES, _SIDE, _CAPTIONS_SHOWN = 24, 320, 5
_LONGEST = 40  # The histogram's end, unless captions are cut later than that.
_SPLIT_AT_ONCE = 4096
_NONE = "\N{EN DASH}"


def write_data_summary(
    path: str,
    title: str,
    command: str,
    splits: Sequence[PreparedSplit],
    samples: Sequence[Example],
    minimum_count: int,
    sequence_length: int,
) -> None:
    """Writes the page; the file is whole or absent.

    Args:
        path: Of the HTML file.
        title: Heading of the page.
        command: The command that prepared the data.
        splits: In the order of the page's columns.
        samples: Examples to show with their captions, the first 24 of them.
        minimum_count: How often a word must occur to be in the vocabulary.
        sequence_length: Tokens of a caption, start and end included; longer ones are cut.
    """
    kept = sequence_length - 2
    counts = count_words(_captions([split for split in splits if split.split == "train"]))
    words = {split.split: _Words.of(_captions([split]), counts) for split in splits}
    environment = new_environment()
    html = environment.get_template("data_summary.html.jinja").render(
        title=title,
        command=command,
        overlaps=overlaps(splits),
        splits=[_figures(split, words[split.split], kept) for split in splits],
        skipped={split.split: split.skipped for split in splits if split.skipped},
        kept=kept,
        lengths={name: of.lengths for name, of in words.items() if len(of.lengths)},
        # Our own drawing; the only text of the data's in it are the names of splits.
        histogram=markupsafe.Markup(_histogram(words, kept)),
        distinct_words=len(counts),
        minimum_count=minimum_count,
        covered=[name for name in ("train", "val") if name in words and len(words[name].counts)],
        coverage=[
            _coverage(minimum, counts, words)
            for minimum in sorted({*_MINIMUM_COUNTS, minimum_count})
        ],
        frequent=counts.most_common(_FREQUENT),
        samples=[_shown(example) for example in samples[:_SAMPLES]],
    )
    filesystem.write_text(path, html)


def overlaps(splits: Sequence[PreparedSplit]) -> list[str]:
    """Tells which images are in two splits, and which are in one split more than once.

    Images are the same if their bytes are, or their names. One that has another name elsewhere is
    given both, `b.jpg = a.jpg`; where only the names agree, that is said.

    Returns:
        Lines such as `3 images of val are also in train: a.jpg, b.jpg, c.jpg`, then lines such as
        `2 images of train occur more than once: d.jpg, e.jpg`.
    """
    lines = []
    for earlier, later in itertools.combinations(splits, 2):
        if names := _shared(earlier.index, later.index):
            many = f"images of {later.split} are", f"image of {later.split} is"
            lines.append(_line(names, *many, f"also in {earlier.split}"))
    for split in splits:
        if names := _repeated(split.index):
            many = f"images of {split.split} occur", f"image of {split.split} occurs"
            lines.append(_line(names, *many, "more than once"))
    return lines


def _line(names: Sequence[str], several: str, one: str, rest: str) -> str:
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    subject = one if len(names) == 1 else several
    return f"{len(names)} {subject} {rest}: {', '.join(names[:NAMES_SHOWN])}{more}"


def _shared(earlier: Sequence[IndexedImage], later: Sequence[IndexedImage]) -> list[str]:
    """Names of the later images that are among the earlier ones, each once."""
    id_of_digest = {image.digest: image.image_id for image in earlier}
    ids = {image.image_id for image in earlier}
    names = []
    for image in later:
        if (same := id_of_digest.get(image.digest)) is not None:
            named_alike = image.image_id in ids
            names.append(image.image_id if named_alike else f"{image.image_id} = {same}")
        elif image.image_id in ids:
            names.append(_by_name_only(image.image_id))
    return list(dict.fromkeys(names))


def _repeated(images: Sequence[IndexedImage]) -> list[str]:
    """Names of the images that occur more than once."""
    digests = Counter(image.digest for image in images)
    ids = Counter(image.image_id for image in images)
    # By digest, or by id where the digests differ; ordered, each name once.
    names_of: dict[str, dict[str, None]] = defaultdict(dict)
    for image in images:
        if digests[image.digest] > 1:
            names_of[image.digest][image.image_id] = None
        elif ids[image.image_id] > 1:
            names_of[image.image_id][_by_name_only(image.image_id)] = None
    return [" = ".join(names) for names in names_of.values()]


def _by_name_only(image_id: str) -> str:
    return f"{image_id} (by name only)"


def _captions(splits: Sequence[PreparedSplit]) -> list[str]:
    return [caption for split in splits for image in split.index for caption in image.captions]


@dataclass(frozen=True)
class _Words:
    """The captions of a split as the tokenizer sees them.

    Attributes:
        lengths: Words of each caption, [N].
        counts: How often the training captions hold each word, [W].
        distinct: How many captions differ in their words.
    """

    lengths: np.ndarray
    counts: np.ndarray
    distinct: int

    @classmethod
    def of(cls, captions: Sequence[str], training_counts: Mapping[str, int]) -> "_Words":
        count_of = {word.encode(): count for word, count in training_counts.items()}
        lengths, counts = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        hashes = [np.empty(0, np.int64)]  # Texts would take as much memory as the captions.
        for start in range(0, len(captions), _SPLIT_AT_ONCE):
            some = captions[start : start + _SPLIT_AT_ONCE]
            # A lone surrogate has no UTF-8; it can stand in a JSON file all the same.
            words = split_words(tf.constant([text.encode("utf-8", "ignore") for text in some]))
            lengths.append(words.row_lengths().numpy().astype(np.int32))
            found = words.flat_values.numpy().tolist()
            counts.append(np.array([count_of.get(word, 0) for word in found], np.int32))
            joined = tf.strings.reduce_join(words, axis=-1, separator=" ")
            hashes.append(tf.strings.to_hash_bucket_fast(joined, 2**63 - 1).numpy())
        distinct = len(np.unique(np.concatenate(hashes)))
        return cls(np.concatenate(lengths), np.concatenate(counts), distinct)

    def rarest(self) -> np.ndarray:
        """The count of the rarest word of each caption that has a word, [<= N]."""
        starts = np.cumsum(self.lengths) - self.lengths
        starts = starts[self.lengths > 0]
        return np.minimum.reduceat(self.counts, starts) if len(starts) else starts


def _figures(content: PreparedSplit, words: _Words, kept: int) -> dict[str, str]:
    """The split's column of the table."""
    captions = np.array([len(image.captions) for image in content.index])
    count = len(words.lengths)
    a_caption = a_image = cut = distinct = _NONE
    if len(captions):
        a_image = f"{captions.min()} · {captions.mean():.2f} · {captions.max()}"
    if count:
        ranks = np.percentile(words.lengths, [50, 95, 100], method="inverted_cdf")
        a_caption = " · ".join(map(str, ranks))
        cut = f"{np.mean(words.lengths > kept):.2%}"
        distinct = f"{words.distinct / count:.2%}"
    copies = len(captions) - len({image.digest for image in content.index})
    repeated = len(captions) - len({image.image_id for image in content.index})
    return {
        "split": content.split,
        "images": f"{len(captions):,}",
        "captions": f"{count:,}",
        "captions_an_image": a_image,
        "words_a_caption": a_caption,
        "cut": cut,
        "distinct": distinct,
        "copies": f"{copies:,}",
        "repeated_names": f"{repeated:,}",
    }


@dataclass(frozen=True)
class _Coverage:
    """What a vocabulary of the words that occur `minimum_count` times or more covers."""

    minimum_count: int
    words: int
    running_words: dict[str, float]
    whole_captions: dict[str, float]


def _coverage(minimum: int, counts: Mapping[str, int], words: Mapping[str, _Words]) -> _Coverage:
    some = {name: of for name, of in words.items() if len(of.counts)}
    return _Coverage(
        minimum,
        sum(count >= minimum for count in counts.values()),
        {name: float(np.mean(of.counts >= minimum)) for name, of in some.items()},
        {name: float(np.mean(of.rarest() >= minimum)) for name, of in some.items()},
    )


def _histogram(words: Mapping[str, _Words], kept: int) -> str:
    """Draws how many words captions have, a line a split, and where they are cut."""
    end = max(_LONGEST, kept + 5)
    looks = itertools.cycle([(TRAINING, "-"), (VALIDATION, "--"), (INK, ":")])
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "lengths"}):
        figure, axes = new_axes(7.0, 2.8)
        for (name, of), (colour, line) in zip(words.items(), looks, strict=False):
            if len(of.lengths):
                captions = np.bincount(np.minimum(of.lengths, end), minlength=end + 1)
                edges = np.arange(end + 2) - 0.5
                shares = captions / len(of.lengths)
                axes.stairs(shares, edges, color=colour, linestyle=line, linewidth=1.6, label=name)
        axes.axvline(kept + 0.5, color=INK, linewidth=0.8, linestyle="-.", label="cut here")
        axes.set_xlim(-0.5, end + 0.5)
        axes.set_xlabel("words")
        axes.set_ylabel("captions of the split")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(frameon=False)
        return to_svg(figure)


def _shown(example: Example) -> dict[str, object]:
    """What the template needs of an example."""
    shown = {
        "image_id": example.image_id,
        "captions": example.captions[:_CAPTIONS_SHOWN],
        "more": len(example.captions[_CAPTIONS_SHOWN:]),
        "source": None,
    }
    try:
        picture = read_picture(example.image)
    # Pillow's decoders also raise the latter three, for damaged and for enormous images.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return shown  # The page says "no picture"; the captions are still worth reading.
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    # At full colour resolution, which keeps thin lines of drawings clean.
    picture.save(buffer, format="jpeg", quality=88, subsampling=0)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return shown | {"source": source, "width": picture.width, "height": picture.height}
