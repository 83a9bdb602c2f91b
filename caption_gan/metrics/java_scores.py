"""METEOR and SPICE, which run in Java, or the reason why one of them did not.

Both programs are those that pycocoevalcap ships, which the literature on COCO reports; the words
come from `caption_gan.metrics.tokenization`. Nothing is downloaded here, and whatever goes wrong
in Java is a `NotRun`: it can never be taken for a score.

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
# Seconds that an image may take, and a start; generous, as this is for a program that hangs.
_METEOR_SECONDS, _SPICE_SECONDS, _START_SECONDS = 0.1, 2.0, 900.0

# METEOR 1.5, English, task `rank` (Denkowski & Lavie 2014): recall against precision, exponent
# and weight of the fragmentation penalty, content against function words, and a match by exact
# word, stem, synonym and paraphrase.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_KIND_WEIGHTS = np.array([_DELTA, 1 - _DELTA])  # [K]
_MATCHER_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # [M]


class Scored(NamedTuple):
    """Each image's score in [0, 1], in the order of the captions, and the corpus's."""

    per_image: dict[str, float]
    metric: Metric


@dataclass(frozen=True)
class NotRun:
    """There is no score, for this reason."""

    reason: str

    def __str__(self) -> str:
        return f"not run: {self.reason}"


def meteor(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Scored | NotRun:
    """Scores captions by words matched to the reference that agrees best, and by their order.

    A word matches as it is, by stem, by synonym or within a paraphrase; matches that lie in many
    pieces cost a penalty (Denkowski & Lavie, "Meteor Universal: Language Specific Translation
    Evaluation for Any Target Language", 2014). The corpus's score is that of the statistics
    summed over images, as in METEOR itself, not the mean of the images' scores. As there, an
    empty caption scores 0, and the words of its first reference count as words not found.

    Args:
        captions: Raw text of each image's caption, by image id.
        references: Raw text of each image's references, by the same ids.

    Raises:
        CaptionGANError: As `quality.quality` does, if captions and references do not match.
    """
    candidates, targets = tokenize_all(captions, references)
    lines = [
        # METEOR parts its fields with `|||`; the official toolkit too drops it from captions.
        " ||| ".join(text.replace("|||", "") for text in ("SCORE", *targets[image], *candidate))
        for image, candidate in candidates.items()
    ]
    # The whole question is handed over at once, hence neither side ever waits for the other.
    program = ["-Xmx2G", "-jar", str(_TOOLKIT / "meteor" / "meteor-1.5.jar")]
    answer = _java(
        [*program, "-", "-", "-stdio", "-l", "en", "-norm"],
        _METEOR_SECONDS * len(lines),
        "METEOR needs 2 GB of memory",
        "".join(f"{line}\n" for line in lines),
    )
    if isinstance(answer, NotRun):
        return answer
    try:
        statistics = np.array([line.split() for line in answer.splitlines()], float)
    except ValueError:
        return NotRun("METEOR answered something other than statistics")
    are_counts = ((statistics >= 0) & (statistics < np.inf)).all()
    if statistics.shape != (len(lines), 23) or not are_counts:
        return NotRun("METEOR did not answer 23 statistics for each caption")
    sums = _meteor_sums(statistics)
    scores = _meteor_of_sums(sums).tolist()
    return Scored(dict(zip(candidates, scores, strict=True)), Metric(sums, _meteor_of_sums))


def spice(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Scored | NotRun:
    """Scores captions by the objects, attributes and relations they share with the references.

    The F-measure of the tuples of two scene graphs, averaged over images (Anderson et al.,
    "SPICE: Semantic Propositional Image Caption Evaluation", 2016). That of all tuples is 0 for
    a caption without any; only those of subsets such as colours, which are not read here, can
    be NaN. The official toolkit would let a NaN make the mean NaN; here it is a `NotRun`.

    Args:
        captions: Raw text of each image's caption, by image id.
        references: Raw text of each image's references, by the same ids.

    Raises:
        CaptionGANError: As `quality.quality` does, if captions and references do not match.
    """
    candidates, targets = tokenize_all(captions, references)
    program = ["-Xmx8G", "-jar", str(_TOOLKIT / "spice" / "spice-1.0.jar")]
    has_models = all((_TOOLKIT / "spice" / "lib" / name).is_file() for name in _MODELS)
    if not has_models and shutil.which("java"):  # without Java that is the reason to give
        return NotRun(
            "Stanford CoreNLP's models are not there; "
            "`python -m pycocoevalcap.spice.get_stanford_models` fetches them"
        )
    question = [
        {"image_id": number, "test": candidate[0], "refs": targets[image]}
        for number, (image, candidate) in enumerate(candidates.items())
    ]
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "question.json"), Path(folder, "answer.json")
        asked.write_text(json.dumps(question), encoding="ascii")
        # No `-cache`: it would go with the folder, and its library exists for few machines.
        ran = _java(
            [*program, str(asked), "-out", str(answered), "-subset", "-silent"],
            _SPICE_SECONDS * len(question),
            # It writes with the JavaScript engine that Java lost in version 15.
            "SPICE needs 8 GB of memory and Java 8 to 14",
        )
        if isinstance(ran, NotRun):
            return ran
        try:
            rows = json.loads(answered.read_text(encoding="utf-8"))
            found = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in rows}
            scores = [found[number] for number in range(len(question))]
        except (OSError, ValueError, LookupError, TypeError):
            return NotRun("SPICE did not write a score for each caption")
    if not all(0 <= score <= 1 for score in scores):
        return NotRun("SPICE wrote a score that is not in [0, 1]")
    return Scored(dict(zip(candidates, scores, strict=True)), mean_of(scores))


def _meteor_sums(statistics: np.ndarray) -> np.ndarray:
    """The weighted matches [T], weighted lengths [T], chunks and matches of each image, [N, 6].

    Args:
        statistics: As METEOR writes them, [N, 23]: lengths [T], function words [T], matches
            [M, K, T], chunks, matched words [T].
    """
    lengths, functions = statistics[:, 0:2], statistics[:, 2:4]  # [N, T] each
    matches = statistics[:, 4:20].reshape(-1, 4, 2, 2)  # [N, M, K, T]
    chunks, matched = statistics[:, 20], statistics[:, 21:23]  # [N], [N, T]
    weighted_matches = np.einsum("nmkt,m,k->nt", matches, _MATCHER_WEIGHTS, _KIND_WEIGHTS)
    weighted_lengths = np.stack([lengths - functions, functions], axis=-1) @ _KIND_WEIGHTS
    # Matched whole and in one piece is not fragmented; METEOR drops the chunk from sums as well.
    is_whole = (matched == lengths).all(axis=1) & (chunks == 1)
    chunks = np.where(is_whole, 0, chunks)
    return np.column_stack([weighted_matches, weighted_lengths, chunks, matched.mean(axis=1)])


def _meteor_of_sums(sums: np.ndarray) -> np.ndarray:
    matches, lengths, (chunks, matched) = np.split(np.moveaxis(sums, -1, 0), 3)  # [T, ...] each
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = matches / lengths
        f_mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        score = f_mean * (1 - _GAMMA * (chunks / matched) ** _BETA)
    return np.where(matched > 0, score, 0.0)


def _java(arguments: list[str], seconds: float, needs: str, text: str = "") -> str | NotRun:
    """Returns what Java writes to standard output when it reads the text."""
    java = shutil.which("java")
    if java is None:
        return NotRun("no java")
    # The language is set lest numbers have a decimal comma or `I` become a dotless `i`.
    command = [java, "-Duser.language=en", *arguments]
    # Half of a surrogate pair, as a broken file may hold, has no encoding.
    question, limit = text.encode(errors="replace"), _START_SECONDS + seconds
    try:
        # On any exception, Ctrl-C too, this kills the process before the exception goes on.
        done = subprocess.run(command, input=question, capture_output=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return NotRun(f"java had not finished after {limit:g} seconds")
    except OSError as error:
        return NotRun(f"java cannot be started: {error}")
    if done.returncode:
        said = done.stderr.decode(errors="replace").split("\n")
        said = [line for line in said if line.strip()] or ["no message"]
        # A stack trace ends with its least telling line.
        telling = next((line for line in said if "Exception" in line), said[-1])[:200]
        return NotRun(f"java left with exit status {done.returncode}: {telling}; {needs}")
    return done.stdout.decode(errors="replace")
