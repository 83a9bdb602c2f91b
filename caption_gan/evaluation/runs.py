"""What a run leaves to be read: `metrics.json`, `captions.jsonl`, `report.html`, a summary."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from caption_gan.config.run import Config
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.shards.prepare import captions_if_prepared, prepare_splits
from caption_gan.data.shards.records import read_examples
from caption_gan.data.sources.registry import build_fact_checker
from caption_gan.evaluation.baselines import baselines
from caption_gan.evaluation.captioning import CaptionedImage, caption_images
from caption_gan.evaluation.frontier import Frontier, Points
from caption_gan.evaluation.split_metrics import score_images
from caption_gan.evaluation.stage_comparison import compare_stages, stages_of
from caption_gan.evaluation.text_metrics import Scores, collapse_signs
from caption_gan.metrics.bootstrap import Bootstrap
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.reporting.report import ReportImage, write_report
from caption_gan.run import RunDirectory, dump_config
from caption_gan.storage.atomic import replacing, write_json
from caption_gan.text.tokenizer import Tokenizer

SHOWN = (
    *("CIDEr", "BLEU-4", "METEOR", "SPICE", "fact_accuracy", "CIDEr_drop", "object_recall"),
    *("object_precision", "repeated_token_rate", "distinct_captions", "mBLEU-4"),
)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A captioner's metrics on a split.

    Attributes:
        split: Its name.
        images: With what was said of them.
        scores: By `<split>/<decoding>/<metric>`.
        intervals: Of 95%, by the same names.
        frontier: Points of quality and variety by the name of the curve.
        collapsed: Signs of a collapse, a line each; empty for a healthy captioner.
    """

    split: str
    images: Sequence[CaptionedImage]
    scores: Scores
    intervals: Mapping[str, tuple[float, float]]
    frontier: Mapping[str, Points]
    collapsed: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Metrics by name, and beside them what else is known of them."""
        metrics: dict[str, Any] = {
            name: round(value, 6) for name, value in self.scores.values.items()
        }
        metrics["intervals"] = {
            name: [round(end, 6) for end in ends] for name, ends in self.intervals.items()
        }
        metrics["not_run"] = self.scores.not_run
        metrics["collapsed"] = list(self.collapsed)
        return metrics


def evaluate_run(
    run: RunDirectory,
    config: Config,
    tokenizer: Tokenizer,
    captioner: Captioner,
    split: str,
    notes: Sequence[str] = (),
    sweep: bool = False,
) -> Evaluation:
    """Captions and scores a split, and writes the metrics, the captions and the report.

    Args:
        run: Where to write. Metrics of other splits stay; captions and report are replaced.
        config: The run's settings.
        tokenizer: The run's.
        captioner: Trained.
        split: `val`, `test` or `train`.
        notes: Lines for the report, such as what data had to be skipped.
        sweep: Whether samples are drawn at many temperatures and from many nuclei, for the
            frontier. Those at many temperatures always are where there are stages to compare.
    """
    is_true = build_fact_checker(config.data)
    # Where truth is known, the nearest training image's caption is what there is to beat.
    wanted = {split, "train"} if is_true else {split}
    splits = prepare_splits(config, captioner.encoder, sorted(wanted))
    prepared = splits[split]
    examples = list(read_examples(prepared))
    pipeline = Pipeline(config.data, config.encoder, captioner.encoder.cached_shape, tokenizer)
    batches = pipeline.validation(prepared, config.decoding.batch_size)
    decoder = TextDecoder(captioner, tokenizer, config.decoding, config.seed)
    images = caption_images(decoder, batches, examples)
    training = captions_if_prepared(config, captioner.encoder, "train")
    scores = score_images(images, config, is_true, training)

    frontier: dict[str, Points] = {}
    stages = stages_of(run, config)
    # One sample an image has no variety.
    if len(stages) > 1 and config.decoding.samples > 1:
        earlier, frontier = compare_stages(run, config, decoder, batches, examples, is_true)
        scores.add(earlier)
    if sweep:
        swept = Frontier(batches, examples, is_true, max(config.decoding.samples, 2), config.seed)
        # An interrupted run may not have ended a stage.
        last = stages[-1] if stages else run.stage_name(config, 0)
        if last not in frontier:
            frontier[last] = swept.temperatures(decoder, last)
        name = f"{last}, top-p"
        frontier[name] = swept.nuclei(decoder, name)
    if is_true:
        known = baselines(examples, list(read_examples(splits["train"])), is_true)
        scores.add(Scores({**known}))

    evaluation = build_evaluation(split, images, scores, config, frontier)
    _write(run, config, evaluation, [*notes, *prepared.skipped])
    return evaluation


def build_evaluation(
    split: str,
    images: Sequence[CaptionedImage],
    scores: Scores,
    config: Config,
    frontier: Mapping[str, Points],
) -> Evaluation:
    """Adds intervals and signs of collapse to metrics by `<decoding>/<metric>`."""
    values = scores.values
    collapsed = []
    for decoding in images[0].captions:
        of_decoding = {
            name.removeprefix(f"{decoding}/"): value
            for name, value in values.items()
            if name.startswith(f"{decoding}/")
        }
        of_decoding["distinct_captions"] /= values["reference/distinct_captions"]
        if decoding != "sample":  # Captions of a beam are alike by their nature.
            of_decoding.pop("mBLEU-4", None)
        signs = collapse_signs(of_decoding, config.monitor)
        collapsed += [f"{decoding}: {sign}" for sign in signs]
    named = Scores()
    named.add(scores, f"{split}/")
    intervals = named.intervals(
        Bootstrap(len(images), config.evaluation.bootstrap_samples, config.seed)
    )
    return Evaluation(split, images, named, intervals, frontier, collapsed)


def _write(run: RunDirectory, config: Config, evaluation: Evaluation, notes: Sequence[str]) -> None:
    split, history = evaluation.split, run.read_history()
    others = json.loads(run.metrics.read_text()) if run.metrics.is_file() else {}
    ours = evaluation.to_json()
    merged = _of_other_splits(others, split) | ours
    for group in ("intervals", "not_run"):
        merged[group] = _of_other_splits(others.get(group, {}), split) | ours[group]
    merged["collapsed"] = others.get("collapsed", {}) | {split: ours["collapsed"]}
    merged["weights"] = others.get("weights", {}) | {split: run.weights_digest()}
    if evaluation.frontier:
        merged["frontier"] = others.get("frontier", {}) | {split: evaluation.frontier}
    write_json(run.metrics, merged | {"history": history})
    with replacing(run.captions) as temporary, temporary.open("w") as file:
        for image in evaluation.images:
            file.write(json.dumps(image.to_json(), ensure_ascii=False) + "\n")
    write_report(
        run.report,
        title=f"{config.data.source}, {split}: {run.path.name}",
        command=f"python -m caption_gan.evaluate {run.path} --split {split}",
        settings=dump_config(config),
        metrics=evaluation.scores.values,
        intervals=evaluation.intervals,
        not_run=evaluation.scores.not_run,
        history=history,
        frontier=evaluation.frontier,
        images=[_report_image(image) for image in evaluation.images],
        notes=notes,
        collapsed=evaluation.collapsed,
    )


def _of_other_splits(metrics: Mapping[str, Any], split: str) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if not name.startswith(f"{split}/")}


def _report_image(image: CaptionedImage) -> ReportImage:
    return ReportImage(
        image_id=image.example.image_id,
        image=image.example.image,
        references=image.example.captions,
        captions=image.captions,
        cider=image.cider,
        is_true=image.is_true,
        tokens=tuple(image.tokens),
        attention=image.attention,
    )


def summary(evaluation: Evaluation) -> str:
    """Scores and a few captions, for the terminal."""
    split, values = evaluation.split, evaluation.scores.values
    lines = [f"COLLAPSED: {sign}" for sign in evaluation.collapsed]
    lines += [*score_lines(split, values, evaluation.intervals, evaluation.scores.not_run), ""]
    for image in evaluation.images[:: max(1, len(evaluation.images) // 4)][:4]:
        lines += [
            f"{image.example.image_id}: {image.captions['greedy'][0][0]}",
            f"    reference: {image.example.captions[0]}",
        ]
    return "\n".join(lines)


def score_lines(
    split: str,
    values: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    not_run: Mapping[str, str],
) -> list[str]:
    """A table of the main metrics, a column a decoding, half a 95% interval beside each."""
    decodings = list(dict.fromkeys(name.split("/")[1] for name in values))
    widths = [max(15, len(decoding) + 2) for decoding in decodings]
    lines = [" " * 20 + "".join(map(str.rjust, decodings, widths))]
    for metric in SHOWN:
        names = [f"{split}/{decoding}/{metric}" for decoding in decodings]
        cells = [_cell(values.get(name), intervals.get(name)) for name in names]
        if any(cells):
            lines.append(f"{metric:20}" + "".join(map(str.rjust, cells, widths)))
    reasons = dict.fromkeys((name.split("/")[2], reason) for name, reason in not_run.items())
    return lines + [f"{metric:20}  not run: {reason}" for metric, reason in reasons]


def _cell(value: float | None, ends: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (f" \N{PLUS-MINUS SIGN}{(ends[1] - ends[0]) / 2:.3f}" if ends else "")


def places(run: RunDirectory) -> str:
    """Where everything lies, for the terminal."""
    paths = {
        "report": run.report,
        "scores": run.metrics,
        "captions": run.captions,
        "TensorBoard": f"tensorboard --logdir {run.logs}",
        "your own images": f"python -m caption_gan.caption {run.path} IMAGE...",
    }
    return "\n".join(f"{name + ':':18}{path}" for name, path in paths.items())
