"""Decides whether a run's scores are good enough for it to be served."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from caption_gan.config.data import DataConfig
from caption_gan.config.run import Config
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.runs import evaluate_run
from caption_gan.evaluation.saved_models import (
    METRICS,
    SETTINGS,
    evaluate_saved_model,
    read_saved_settings,
)
from caption_gan.models.captioner import Captioner
from caption_gan.run import RunDirectory
from caption_gan.settings import read_config_file
from caption_gan.text.tokenizer import Tokenizer

SPLIT = "val"
CIDER = f"{SPLIT}/greedy/CIDEr"  # `serving_default` returns greedy captions.
# The best single caption for all images scores 0.13 on Flickr8k, 0.6 on the built-in data sets.
MIN_CIDER = 0.15
TOLERANCE = 0.05  # Between seeds of one setting, CIDEr differs by 3% of its value.

LoadedRun = tuple[Config, Tokenizer, Captioner]


def run_scores(path: Path, run: LoadedRun, reevaluate: bool) -> tuple[float, Sequence[str]]:
    """CIDEr of a run, and its signs of collapse.

    Args:
        path: The run directory.
        run: What `load_run` returns for it.
        reevaluate: Evaluate the run even if `metrics.json` has the scores of its present weights.
    """
    directory = RunDirectory(path)
    if not reevaluate and directory.metrics.is_file():
        metrics = json.loads(directory.metrics.read_text())
        # The digests differ if training was resumed and interrupted after the evaluation.
        if metrics.get("weights", {}).get(SPLIT) == directory.weights_digest():
            return metrics[CIDER], metrics["collapsed"][SPLIT]
    evaluation = evaluate_run(directory, *run, SPLIT)
    return evaluation.scores.values[CIDER], evaluation.collapsed


def served_cider(version: Path, data: DataConfig) -> float:
    """CIDEr of a served version.

    Args:
        version: Folder of the version.
        data: Data settings of the run. CIDEr on different data cannot be compared, so a version
            that was not evaluated on these data is evaluated now.

    Raises:
        CaptionGANError: The version cannot be evaluated.
    """
    metrics, settings = version / METRICS, version / SETTINGS
    if metrics.is_file() and settings.is_file():
        scores = json.loads(metrics.read_text())
        config = read_config_file(settings)
        if CIDER in scores and config.data == data:
            return scores[CIDER]
    try:
        config = dataclasses.replace(read_saved_settings(version), data=data)
        evaluation = evaluate_saved_model(version, config, SPLIT)
    except CaptionGANError as error:
        raise CaptionGANError(f"{error} --tolerance 1 pushes without a comparison.") from error
    return evaluation.scores.values[CIDER]


def rejection_reasons(
    cider: float,
    collapsed: Sequence[str],
    served_cider: float | None,
    min_cider: float,
    tolerance: float,
) -> list[str]:
    """Why a run must not be served; empty if it is good enough.

    Args:
        cider: CIDEr of the run.
        collapsed: Its signs of collapse.
        served_cider: CIDEr of the version that is served now, or None if there is none.
        min_cider: Smallest CIDEr that is good enough.
        tolerance: Share of `served_cider` that the run may fall short by.
    """
    reasons = [f"signs of collapse: {sign}" for sign in collapsed]
    if not cider >= min_cider:  # Written so that NaN is rejected too.
        reasons.append(f"CIDEr is {cider:.3f}, less than {min_cider:g} (--min_cider)")
    if served_cider is not None and not cider >= (1 - tolerance) * served_cider:
        reasons.append(
            f"CIDEr is {cider:.3f}, more than {tolerance:.0%} below the {served_cider:.3f} of the "
            "version served now (--tolerance)"
        )
    return reasons
