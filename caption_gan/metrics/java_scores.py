"""METEOR and SPICE, which run in Java, or the reason why they did not run.

Both programs are pycocoevalcap's, whose scores the literature on COCO reports. The tokens come from
`caption_gan.metrics.tokenization`. This module downloads nothing. A failure in Java gives a
`NotRun`, never a score.

N images, M matchers, K kinds of words (content, function), T texts (caption, reference).
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pycocoevalcap

from caption_gan.metrics.metric import Metric, mean_of
from caption_gan.metrics.quality import tokenize_all

_TOOLKIT = Path(next(iter(pycocoevalcap.__path__)))
_MODELS = ["stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"]
# Time limits in seconds, per image and for the start. Generous: they only end a program that hangs.
_METEOR_SECONDS, _SPICE_SECONDS, _START_SECONDS = 0.1, 2.0, 900.0

# METEOR 1.5, English, task `rank` (Denkowski & Lavie 2014): alpha weighs recall against precision,
# beta and gamma are exponent and weight of the fragmentation penalty, delta weighs content against
# function words. Matchers: exact word, stem, synonym, paraphrase.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_KIND_WEIGHTS = np.array([_DELTA, 1 - _DELTA])  # [K]
_MATCHER_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # [M]


class Scored(NamedTuple):
    """Scores in [0, 1].

    Attributes:
        per_image: The score of each image, by image id in the order of the captions.
        metric: The score of the corpus.
    """

    per_image: dict[str, float]
    metric: Metric


@dataclass(frozen=True)
class NotRun:
    """A metric could not be computed, for this reason."""

    reason: str

    def __str__(self) -> str:
        return f"not run: {self.reason}"


def meteor(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Scored | NotRun:
    """METEOR: words matched with the reference that agrees best, and their order.

    A word matches exactly, by stem, by synonym or within a paraphrase. Matches that are fragmented
    into many chunks cost a penalty (Denkowski & Lavie, "Meteor Universal: Language Specific
    Translation Evaluation for Any Target Language", 2014). As in METEOR itself,
    the corpus score comes from the statistics summed over images and is not the mean of the image
    scores. An empty caption scores 0, and the words of its first reference count as not found.

    Args:
        captions: Raw text of each image's caption, by image id.
        references: Raw text of each image's references, by the same ids.

    Raises:
        CaptionGANError: As `quality.quality`, if captions and references do not match.
    """
    candidates, targets = tokenize_all(captions, references)
    lines = [
        # `|||` separates METEOR's fields; pycocoevalcap drops it from captions too.
        " ||| ".join(text.replace("|||", "") for text in ("SCORE", *targets[image], *candidate))
        for image, candidate in candidates.items()
    ]
    # Sends the whole input at once, so that neither side can wait for the other.
    program = ["-Xmx2G", "-jar", str(_TOOLKIT / "meteor" / "meteor-1.5.jar")]
    output = _java(
        [*program, "-", "-", "-stdio", "-l", "en", "-norm"],
        _METEOR_SECONDS * len(lines),
        "METEOR needs 2 GB of memory",
        "".join(f"{line}\n" for line in lines),
    )
    if isinstance(output, NotRun):
        return output
    try:
        statistics = np.array([line.split() for line in output.splitlines()], float)
    except ValueError:
        return NotRun("METEOR returned something other than statistics")
    are_counts = ((statistics >= 0) & (statistics < np.inf)).all()
    if statistics.shape != (len(lines), 23) or not are_counts:
        return NotRun("METEOR did not return 23 statistics for each caption")
    sums = _meteor_sums(statistics)
    scores = _meteor_of_sums(sums).tolist()
    return Scored(dict(zip(candidates, scores, strict=True)), Metric(sums, _meteor_of_sums))


def spice(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Scored | NotRun:
    """SPICE: objects, attributes and relations that captions share with the references.

    The F-measure of the tuples of two scene graphs, averaged over images (Anderson et al.,
    "SPICE: Semantic Propositional Image Caption Evaluation", 2016). The score over all tuples is 0
    for a caption without any. Only the scores of subsets such as colours, which this function does
    not read, can be NaN. In pycocoevalcap a NaN makes the mean NaN; here it gives a `NotRun`.

    Args:
        captions: Raw text of each image's caption, by image id.
        references: Raw text of each image's references, by the same ids.

    Raises:
        CaptionGANError: As `quality.quality`, if captions and references do not match.
    """
    candidates, targets = tokenize_all(captions, references)
    program = ["-Xmx8G", "-jar", str(_TOOLKIT / "spice" / "spice-1.0.jar")]
    has_models = all((_TOOLKIT / "spice" / "lib" / name).is_file() for name in _MODELS)
    if not has_models and shutil.which("java"):  # Without Java, that is the reason to report.
        return NotRun(
            "Stanford CoreNLP's models are missing; fetch them with "
            "`python -m pycocoevalcap.spice.get_stanford_models`"
        )
    inputs = [
        {"image_id": number, "test": candidate[0], "refs": targets[image]}
        for number, (image, candidate) in enumerate(candidates.items())
    ]
    with tempfile.TemporaryDirectory() as folder:
        input_file, output_file = Path(folder, "input.json"), Path(folder, "output.json")
        input_file.write_text(json.dumps(inputs), encoding="ascii")
        # No `-cache`: it would be deleted with the folder, and its library supports few platforms.
        ran = _java(
            [*program, str(input_file), "-out", str(output_file), "-subset", "-silent"],
            _SPICE_SECONDS * len(inputs),
            # SPICE uses the JavaScript engine that Java 15 removed.
            "SPICE needs 8 GB of memory and Java 8 to 14",
        )
        if isinstance(ran, NotRun):
            return ran
        try:
            rows = json.loads(output_file.read_text(encoding="utf-8"))
            found = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in rows}
            scores = [found[number] for number in range(len(inputs))]
        except (OSError, ValueError, LookupError, TypeError):
            return NotRun("SPICE did not write a score for each caption")
    if not all(0 <= score <= 1 for score in scores):
        return NotRun("SPICE wrote a score that is not in [0, 1]")
    return Scored(dict(zip(candidates, scores, strict=True)), mean_of(scores))


def _meteor_sums(statistics: np.ndarray) -> np.ndarray:
    """Per image: weighted matches [T], weighted lengths [T], chunks and matches; [N, 6].

    Args:
        statistics: METEOR's output [N, 23]: lengths [T], function words [T], matches [M, K, T],
            chunks, matched words [T].
    """
    lengths, functions = statistics[:, 0:2], statistics[:, 2:4]  # [N, T] each
    matches = statistics[:, 4:20].reshape(-1, 4, 2, 2)  # [N, M, K, T]
    chunks, matched = statistics[:, 20], statistics[:, 21:23]  # [N], [N, T]
    weighted_matches = np.einsum("nmkt,m,k->nt", matches, _MATCHER_WEIGHTS, _KIND_WEIGHTS)
    weighted_lengths = np.stack([lengths - functions, functions], axis=-1) @ _KIND_WEIGHTS
    # A caption that matches whole and in one chunk is not fragmented; METEOR drops that chunk from
    # sums too.
    is_whole = (matched == lengths).all(axis=1) & (chunks == 1)
    chunks = np.where(is_whole, 0, chunks)
    return np.column_stack([weighted_matches, weighted_lengths, chunks, matched.mean(axis=1)])


def _meteor_of_sums(sums: np.ndarray) -> np.ndarray:
    """METEOR [...] of summed statistics [..., 6]."""
    matches, lengths, (chunks, matched) = np.split(np.moveaxis(sums, -1, 0), 3)  # [T, ...] each
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = matches / lengths
        f_mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        score = f_mean * (1 - _GAMMA * (chunks / matched) ** _BETA)
    return np.where(matched > 0, score, 0.0)


def _java(arguments: list[str], seconds: float, needs: str, text: str = "") -> str | NotRun:
    """Runs Java and returns its standard output.

    Args:
        arguments: Command line after `java`.
        seconds: Time limit, in addition to that of the start.
        needs: What the program needs, for the message if it fails.
        text: Standard input.
    """
    java = shutil.which("java")
    if java is None:
        return NotRun("no java on the PATH")
    # Other languages write numbers with a decimal comma, or lower-case `I` to a dotless `i`.
    command = [java, "-Duser.language=en", *arguments]
    # A broken file may hold half of a surrogate pair, which cannot be encoded.
    encoded, limit = text.encode(errors="replace"), _START_SECONDS + seconds
    try:
        # On any exception, including Ctrl-C, `run` kills the process before it re-raises.
        done = subprocess.run(command, input=encoded, capture_output=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return NotRun(f"java did not finish within {limit:g} seconds")
    except OSError as error:
        return NotRun(f"java could not be started: {error}")
    if done.returncode:
        lines = done.stderr.decode(errors="replace").split("\n")
        lines = [line for line in lines if line.strip()] or ["no message"]
        # The last line of a stack trace is its least informative one.
        reason = next((line for line in lines if "Exception" in line), lines[-1])[:200]
        return NotRun(f"java ended with exit status {done.returncode}: {reason}; {needs}")
    return done.stdout.decode(errors="replace")
