"""The page about a dual encoder: retrieval, wrong captions, training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from caption_gan.reporting.pages import new_environment

ONE_WRONG = "one_wrong"  # Metrics `one_wrong/<kind>`; all others are `<direction>/<metric>`.


def write_dual_encoder_report(
    path: Path,
    name: str,
    command: str,
    metrics: Mapping[str, float],
    history: Sequence[Mapping[str, float]],
    examples: Mapping[str, tuple[str, str]],
    counts: Mapping[str, float],
) -> None:
    """Writes the page.

    Args:
        path: The HTML file.
        name: Of the dual encoder.
        command: Command line that trained it.
        metrics: On the validation split.
        history: Training metrics of each epoch.
        examples: For each kind of wrong caption a true and a wrong one.
        counts: `training_images`, validation `images` and `captions`, and `minutes` of training.
    """
    tables: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        table, metric = key.split("/")
        tables.setdefault(table.replace("_to_", " to "), {})[metric] = value
    wrong = tables.pop(ONE_WRONG, {})
    template = new_environment().get_template("dual_encoder_report.html.jinja")
    page = template.render(
        name=name,
        command=command,
        retrieval=tables,
        wrong=wrong,
        history=history,
        examples=examples,
        **counts,
    )
    path.write_text(page, encoding="utf-8")
