"""Adversarial image captioning: train on images with captions, caption your own images, serve.

    import caption_gan

    run = caption_gan.fit(run_dir="runs/charts")            # trains on the built-in charts
    captioner = caption_gan.load("runs/charts")
    for caption in captioner.caption("chart.png", n=3):
        print(caption.score, caption.text)
    captioner.score("chart.png", "the red line rises")      # a log-likelihood
    caption_gan.evaluate("runs/charts", split="test")       # metrics by name

Importing the package takes milliseconds; the first call imports TensorFlow.
"""

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from caption_gan.distribution import quiet_tensorflow

if TYPE_CHECKING:
    from caption_gan.config.run import Config
    from caption_gan.errors import CaptionGANError
    from caption_gan.evaluation.trained_captioner import Caption, CaptionScore, TrainedCaptioner
    from caption_gan.fit import TrainedRun

quiet_tensorflow.install()

# In the order of the API pages.
__all__ = [  # noqa: RUF022
    "load",
    "fit",
    "evaluate",
    "TrainedCaptioner",
    "Caption",
    "CaptionScore",
    "TrainedRun",
    "Config",
    "CaptionGANError",
]

# Modules of the public classes; they are imported when somebody asks for a class.
_MODULES = {
    "TrainedCaptioner": "caption_gan.evaluation.trained_captioner",
    "Caption": "caption_gan.evaluation.trained_captioner",
    "CaptionScore": "caption_gan.evaluation.trained_captioner",
    "TrainedRun": "caption_gan.fit",
    "Config": "caption_gan.config.run",
    "CaptionGANError": "caption_gan.errors",
}


def load(run_or_saved_model: "str | os.PathLike[str]", **settings: Any) -> "TrainedCaptioner":
    """Loads a trained captioner.

        caption_gan.load("runs/charts", decoding={"no_repeat_ngram_size": 3})

    Args:
        run_or_saved_model: A run directory, or a SavedModel that `python -m caption_gan.export`
            wrote, such as `runs/NAME/export/1767225600`.
        **settings: `decoding`, a dictionary of settings that replace the run's; not for a
            SavedModel.

    Returns:
        A captioner that captions images and, if it is a run's, scores captions.

    Raises:
        CaptionGANError: The path is neither, the run has no trained weights yet, its encoder needs
            precomputed regions, or a setting is unknown.
    """
    from caption_gan.evaluation.changed_settings import settings_from_python
    from caption_gan.evaluation.loaded_captioners import load_captioner

    return load_captioner(run_or_saved_model, settings_from_python(settings, ["decoding"]))


def fit(
    config: "Config | str | os.PathLike[str] | None" = None, /, **settings: Any
) -> "TrainedRun":
    """Trains a captioner, evaluates it on the validation split and writes a report.

    Settings are those of `python -m caption_gan.fit --help`. A `run_dir` that exists is continued.

        caption_gan.fit("configs/scenes.yaml", run_dir="runs/scenes")
        caption_gan.fit(seed=1, stages=["maximum_likelihood"], data={"train_images": 500})

    Args:
        config: Settings: a YAML file, a `Config`, or None for the defaults.
        **settings: Settings that replace those of `config`; groups are dictionaries.

    Returns:
        The run with its metrics.

    Raises:
        CaptionGANError: A setting or the data cannot be used.
    """
    from caption_gan.fit import fit_settings

    return fit_settings(config, settings)


def evaluate(
    run_or_saved_model: "TrainedRun | str | os.PathLike[str]", split: str = "val", **settings: Any
) -> dict[str, float]:
    """Captions and scores a split of the data set that a captioner was trained on.

    A run's `metrics.json`, `captions.jsonl` and `report.html` are updated. Results of other
    settings of `decoding` or `evaluation` are written beside them, into a folder of
    `evaluations/`.

        caption_gan.evaluate("runs/charts", decoding={"samples": 15})
        caption_gan.evaluate("runs/photos", data={"root": "moved/photos"})

    Args:
        run_or_saved_model: What `fit` returned, a run directory, or a SavedModel.
        split: `train`, `val` or `test`.
        **settings: Settings that replace the run's, as dictionaries: `decoding` (not for a
            SavedModel), `evaluation`, and where moved files are: `data` (`root`, `shards`,
            `karpathy`, `cache`) and `encoder` (`regions`, `weights`).

    Returns:
        Metrics by `<split>/<decoding>/<metric>`, such as `val/greedy/CIDEr`.

    Raises:
        CaptionGANError: There is no such captioner, split, data set or setting.
    """
    from caption_gan.evaluate import evaluate_captioner
    from caption_gan.evaluation.changed_settings import settings_from_python

    changes = settings_from_python(settings)
    evaluation = evaluate_captioner(os.fspath(run_or_saved_model), split, changes=changes)
    return dict(evaluation.scores.values)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


class _Package(ModuleType):
    """Keeps the functions `fit` and `evaluate`.

    Importing a submodule sets it as an attribute of its package. The programs `caption_gan.fit`
    and `caption_gan.evaluate` would replace the functions of the same names.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in ("fit", "evaluate") and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
