"""Which score to believe: how well each one agrees with people's ratings of captions."""

from typing import Any

from caption_gan.evaluation.rating_files import read_ratings
from caption_gan.metrics import human, java_scores
from caption_gan.metrics.java_scores import NotRun


def judge(ratings: str, references: str) -> dict[str, Any]:
    """Correlates automatic scores with ratings.

    Args:
        ratings: File of rated captions; see `data/ratings.py` for its forms.
        references: File of the images' references.

    Returns:
        `pairs`, `left_out`, `references_left_out`; `tau`, the variant of Kendall's rank
        correlation; `correlation` by score, None where it is not defined; `not_run` by score.

    Raises:
        CaptionGANError: A file cannot be used.
    """
    rated = read_ratings(ratings, references)
    captions = [pair.caption for pair in rated.pairs]
    targets = [rated.references[pair.image_id] for pair in rated.pairs]
    scores = human.caption_scores(captions, targets)
    not_run = {}
    # An image may have several captions, so that it is pairs that are numbered.
    by_pair = {str(pair): caption for pair, caption in enumerate(captions)}
    of_pair = dict(zip(by_pair, targets, strict=True))
    for name, score in (("METEOR", java_scores.meteor), ("SPICE", java_scores.spice)):
        scored = score(by_pair, of_pair)
        if isinstance(scored, NotRun):
            not_run[name] = scored.reason
        else:
            scores[name] = list(scored.per_image.values())
    return {
        "pairs": len(rated.pairs),
        "left_out": rated.left_out,
        "references_left_out": rated.references_left_out,
        "tau": rated.tau,
        "correlation": human.correlations(
            scores, [pair.ratings for pair in rated.pairs], rated.tau
        ),
        "not_run": not_run,
    }


def judgement_lines(judged: dict[str, Any]) -> list[str]:
    """For the terminal: the score that agrees best comes first."""
    lines = [f"{judged['pairs']} rated captions; Kendall's tau-{judged['tau']} with the ratings"]
    if judged["left_out"]:
        lines.append(f"{judged['left_out']} left out, as they are references of their image")
    if judged["references_left_out"]:
        lines.append(f"{judged['references_left_out']} references left out, as they are rated")
    found = judged["correlation"].items()
    defined = sorted(((tau, name) for name, tau in found if tau is not None), reverse=True)
    lines += [f"{name:10}{tau:+.3f}" for tau, name in defined]
    lines += [f"{name:10}undefined: all alike" for name, tau in found if tau is None]
    return lines + [f"{name:10}not run: {why}" for name, why in judged["not_run"].items()]
