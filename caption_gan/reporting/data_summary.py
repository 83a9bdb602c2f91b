"""The data summary: an HTML page on the contents and problems of the splits, before training.

The file is self-contained: no scripts, and no fonts, images or links from elsewhere.

N captions, W words of all captions, concatenated.
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
_LONGEST = 40  # End of the histogram, unless captions are truncated later than that.
_BLOCK = 4096
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
        path: The HTML file.
        title: Heading of the page.
        command: The command that prepared the data.
        splits: The splits, in the order of the columns.
        samples: Examples of which the page shows the first 24 with their captions.
        minimum_count: How often a word must occur to be in the vocabulary.
        sequence_length: Maximum tokens of a caption, including start and end; longer captions are
            truncated.
    """
    max_words = sequence_length - 2
    counts = count_words(_captions([split for split in splits if split.split == "train"]))
    words = {split.split: _Words.of(_captions([split]), counts) for split in splits}
    environment = new_environment()
    html = environment.get_template("data_summary.html.jinja").render(
        title=title,
        command=command,
        overlaps=overlaps(splits),
        splits=[_split_column(split, words[split.split], max_words) for split in splits],
        notes=list(dict.fromkeys(note for split in splits for note in split.notes)),
        skipped={split.split: split.skipped for split in splits if split.skipped},
        max_words=max_words,
        lengths={
            name: of_split.lengths for name, of_split in words.items() if len(of_split.lengths)
        },
        # Safe: the only text in the chart are the names of splits, which Matplotlib escapes.
        histogram=markupsafe.Markup(_histogram(words, max_words)),
        distinct_words=len(counts),
        minimum_count=minimum_count,
        covered=[name for name in ("train", "val") if name in words and len(words[name].counts)],
        coverage=[
            _coverage(minimum, counts, words)
            for minimum in sorted({*_MINIMUM_COUNTS, minimum_count})
        ],
        frequent=counts.most_common(_FREQUENT),
        samples=[_template_values(example) for example in samples[:_SAMPLES]],
    )
    filesystem.write_text(path, html)


def overlaps(splits: Sequence[PreparedSplit]) -> list[str]:
    """Lists images that are in two splits, and images that are in one split more than once.

    Images are the same if their bytes or their names are. An image with two names is listed with
    both, `b.jpg = a.jpg`. An image that agrees in its name only is marked so.

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
    """Names of the later images that are among the earlier ones, without repetitions."""
    id_of_digest = {image.digest: image.image_id for image in earlier}
    ids = {image.image_id for image in earlier}
    names = []
    for image in later:
        if (same := id_of_digest.get(image.digest)) is not None:
            same_name = image.image_id in ids
            names.append(image.image_id if same_name else f"{image.image_id} = {same}")
        elif image.image_id in ids:
            names.append(_by_name_only(image.image_id))
    return list(dict.fromkeys(names))


def _repeated(images: Sequence[IndexedImage]) -> list[str]:
    """Names of the images that occur more than once."""
    digests = Counter(image.digest for image in images)
    ids = Counter(image.image_id for image in images)
    # Names by digest, or by id if the digests differ; the inner dictionary is an ordered set.
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
    """The captions of a split as the word tokenizer splits them.

    Attributes:
        lengths: Number of words of each caption, [N].
        counts: How often each word occurs in the training captions, [W].
        distinct: Number of distinct captions.
    """

    lengths: np.ndarray
    counts: np.ndarray
    distinct: int

    @classmethod
    def of(cls, captions: Sequence[str], training_counts: Mapping[str, int]) -> "_Words":
        count_of = {word.encode(): count for word, count in training_counts.items()}
        lengths, counts = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        hashes = [np.empty(0, np.int64)]  # The texts would take as much memory as the captions.
        for start in range(0, len(captions), _BLOCK):
            block = captions[start : start + _BLOCK]
            # A JSON file may contain lone surrogates, which UTF-8 cannot encode.
            words = split_words(tf.constant([text.encode("utf-8", "ignore") for text in block]))
            lengths.append(words.row_lengths().numpy().astype(np.int32))
            found = words.flat_values.numpy().tolist()
            counts.append(np.array([count_of.get(word, 0) for word in found], np.int32))
            joined = tf.strings.reduce_join(words, axis=-1, separator=" ")
            hashes.append(tf.strings.to_hash_bucket_fast(joined, 2**63 - 1).numpy())
        distinct = len(np.unique(np.concatenate(hashes)))
        return cls(np.concatenate(lengths), np.concatenate(counts), distinct)

    def rarest(self) -> np.ndarray:
        """The count of the rarest word of each non-empty caption, [<= N]."""
        starts = np.cumsum(self.lengths) - self.lengths
        starts = starts[self.lengths > 0]
        return np.minimum.reduceat(self.counts, starts) if len(starts) else starts


def _split_column(content: PreparedSplit, words: _Words, max_words: int) -> dict[str, str]:
    """The column of the table for one split."""
    captions = np.array([len(image.captions) for image in content.index])
    count = len(words.lengths)
    per_caption = per_image = truncated = distinct = _NONE
    if len(captions):
        per_image = f"{captions.min()} · {captions.mean():.2f} · {captions.max()}"
    if count:
        ranks = np.percentile(words.lengths, [50, 95, 100], method="inverted_cdf")
        per_caption = " · ".join(map(str, ranks))
        truncated = f"{np.mean(words.lengths > max_words):.2%}"
        distinct = f"{words.distinct / count:.2%}"
    copies = len(captions) - len({image.digest for image in content.index})
    repeated = len(captions) - len({image.image_id for image in content.index})
    return {
        "split": content.split,
        "images": f"{len(captions):,}",
        "captions": f"{count:,}",
        "captions_per_image": per_image,
        "words_per_caption": per_caption,
        "truncated": truncated,
        "distinct": distinct,
        "copies": f"{copies:,}",
        "repeated_names": f"{repeated:,}",
    }


@dataclass(frozen=True)
class _Coverage:
    """Coverage by a vocabulary of the words that occur at least `minimum_count` times.

    Attributes:
        minimum_count: Minimum count in the training captions.
        words: Number of words of the vocabulary.
        running_words: Share of all words that are in the vocabulary, by split.
        whole_captions: Share of captions whose words are all in the vocabulary, by split.
    """

    minimum_count: int
    words: int
    running_words: dict[str, float]
    whole_captions: dict[str, float]


def _coverage(minimum: int, counts: Mapping[str, int], words: Mapping[str, _Words]) -> _Coverage:
    with_words = {name: of_split for name, of_split in words.items() if len(of_split.counts)}
    return _Coverage(
        minimum,
        sum(count >= minimum for count in counts.values()),
        {name: float(np.mean(split.counts >= minimum)) for name, split in with_words.items()},
        {name: float(np.mean(split.rarest() >= minimum)) for name, split in with_words.items()},
    )


def _histogram(words: Mapping[str, _Words], max_words: int) -> str:
    """Draws the caption lengths of each split, and the length at which captions are truncated."""
    end = max(_LONGEST, max_words + 5)
    styles = itertools.cycle([(TRAINING, "-"), (VALIDATION, "--"), (INK, ":")])
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "lengths"}):
        figure, axes = new_axes(7.0, 2.8)
        for (name, of_split), (colour, line) in zip(words.items(), styles, strict=False):
            if len(of_split.lengths):
                captions = np.bincount(np.minimum(of_split.lengths, end), minlength=end + 1)
                edges = np.arange(end + 2) - 0.5
                shares = captions / len(of_split.lengths)
                axes.stairs(shares, edges, color=colour, linestyle=line, linewidth=1.6, label=name)
        axes.axvline(
            max_words + 0.5, color=INK, linewidth=0.8, linestyle="-.", label="maximum length"
        )
        axes.set_xlim(-0.5, end + 0.5)
        axes.set_xlabel("words")
        axes.set_ylabel("share of captions")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(frameon=False)
        return to_svg(figure)


def _template_values(example: Example) -> dict[str, object]:
    """What the template needs of an example."""
    values = {
        "image_id": example.image_id,
        "captions": example.captions[:_CAPTIONS_SHOWN],
        "more": len(example.captions[_CAPTIONS_SHOWN:]),
        "source": None,
    }
    try:
        picture = read_picture(example.image)
    # Pillow raises the last three for damaged and for huge images.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return values  # The page says "no picture"; the captions are still worth reading.
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    # Full colour resolution keeps thin lines of drawings sharp.
    picture.save(buffer, format="jpeg", quality=88, subsampling=0)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return values | {"source": source, "width": picture.width, "height": picture.height}
