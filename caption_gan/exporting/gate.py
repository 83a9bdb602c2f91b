"""Whether a run's scores are good enough for it to be served."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from caption_gan.config.data import DataConfig
from caption_gan.config.run import Config
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.runs import evaluate_run
from caption_gan.evaluation.saved_models import METRICS, SETTINGS, evaluate_saved_model
from caption_gan.models.captioner import Captioner
from caption_gan.run import RunDirectory, read_config
from caption_gan.text.tokenizer import Tokenizer

SPLIT = "val"
CIDER = f"{SPLIT}/greedy/CIDEr"  # Of what `serving_default` says.
# The best single caption for all images has 0.13 on Flickr8k, 0.6 on the drawn sets.
MIN_CIDER = 0.15
TOLERANCE = 0.05  # Other seeds of one setting move CIDEr by 0.03 of it.

LoadedRun = tuple[Config, Tokenizer, Captioner]


def run_scores(path: Path, run: LoadedRun, anew: bool) -> tuple[float, Sequence[str]]:
    """CIDEr of a run, and signs of collapse.

    Args:
        path: The run directory.
        run: What `load_run` finds there.
        anew: Whether it is scored now even if `metrics.json` tells of the present weights.
    """
    place = RunDirectory(path)
    if not anew and place.metrics.is_file():
        metrics = json.loads(place.metrics.read_text())
        # Of others if training went on and was interrupted.
        if metrics.get("weights", {}).get(SPLIT) == place.weights_digest():
            return metrics[CIDER], metrics["collapsed"][SPLIT]
    evaluation = evaluate_run(place, *run, SPLIT)
    return evaluation.scores.values[CIDER], evaluation.collapsed


def served_cider(version: Path, data: DataConfig) -> float:
    """CIDEr of a served version.

    Args:
        version: Its folder.
        data: The run's. If the version was scored on other data, across which CIDEr cannot be
            compared, or not at all, it is scored on these now.

    Raises:
        CaptionGANError: It cannot be scored.
    """
    metrics, settings = version / METRICS, version / SETTINGS
    if metrics.is_file() and settings.is_file():
        known = json.loads(metrics.read_text())
        config = read_config([f"--config={settings}"], prog=str(settings))
        if CIDER in known and config.data == data:
            return known[CIDER]
    try:
        evaluation = evaluate_saved_model(
            version, lambda config: dataclasses.replace(config, data=data), SPLIT
        )
    except CaptionGANError as error:
        raise CaptionGANError(f"{error} --tolerance 1 pushes without a comparison.") from error
    return evaluation.scores.values[CIDER]


def reasons_against(
    cider: float,
    collapsed: Sequence[str],
    served: float | None,
    least: float,
    tolerance: float,
) -> list[str]:
    """Why a run is not good enough; nothing if it is.

    Args:
        cider: Its own.
        collapsed: Its signs of collapse.
        served: CIDEr of the version that is served now, if there is one.
        least: What CIDEr must be.
        tolerance: Share of `served` that may be lost.
    """
    reasons = [f"signs of collapse: {sign}" for sign in collapsed]
    if not cider >= least:  # So that no number is refused, too.
        reasons.append(f"CIDEr is {cider:.3f}, less than {least:g} (--min_cider)")
    if served is not None and not cider >= (1 - tolerance) * served:
        reasons.append(
            f"CIDEr is {cider:.3f}, that of the version served now {served:.3f}, of which "
            f"{tolerance:.0%} may be lost (--tolerance)"
        )
    return reasons
