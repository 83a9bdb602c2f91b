"""Evaluates a run: writes `metrics.json`, `captions.jsonl` and `report.html` into its directory."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from caption_gan.config.run import Config
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.shards.prepare import prepare_splits
from caption_gan.data.shards.records import read_examples
from caption_gan.data.sources.registry import build_fact_checker
from caption_gan.evaluation.baselines import baselines
from caption_gan.evaluation.captioning import caption_images
from caption_gan.evaluation.changed_settings import result_files
from caption_gan.evaluation.critic_judgement import CRITICS_CHOICE, judge
from caption_gan.evaluation.frontier import COARSE, FINE, Frontier
from caption_gan.evaluation.known_data import (
    describe_data,
    describe_difference,
    known_data,
    training_split,
)
from caption_gan.evaluation.result import Evaluation
from caption_gan.evaluation.split_metrics import score_images
from caption_gan.evaluation.stage_comparison import (
    StageComparison,
    compare_stages,
    load_critic,
    stage_samples,
    stages_of,
)
from caption_gan.evaluation.text_metrics import Scores
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.models.dual_encoders.saved_model import load_dual_encoder
from caption_gan.reporting.report import StageSamples, write_report
from caption_gan.run import RunDirectory
from caption_gan.settings import dump_config
from caption_gan.storage.atomic import replacing, write_json
from caption_gan.text.tokenizer import Tokenizer


def evaluate_run(
    run: RunDirectory,
    config: Config,
    tokenizer: Tokenizer,
    captioner: Captioner,
    split: str,
    notes: Sequence[str] = (),
    sweep: bool = False,
    changes: Sequence[str] = (),
) -> Evaluation:
    """Captions and scores a split, and writes metrics, captions and report.

    Args:
        run: Where to write (see `result_files`). Metrics of other splits stay; captions and report
            are replaced.
        config: Settings of the run, or others for decoding and evaluation.
        tokenizer: Tokenizer of the run.
        captioner: The trained captioner.
        split: `val`, `test` or `train`.
        notes: Lines for the report, such as which data were skipped.
        sweep: Whether to sample at many temperatures and from many nuclei, for the frontier. The
            stages of a run of several are always compared, at a few.
        changes: The settings that are not the run's own, for the command in the report.
    """
    dual_encoder = load_dual_encoder(config.evaluation.dual_encoder)
    fact_checker = build_fact_checker(config.data)
    # With facts, the nearest training image gives a baseline.
    splits = sorted({split, "train"} if fact_checker else {split})
    prepared_splits = prepare_splits(config, captioner.encoder, splits)
    prepared = prepared_splits[split]
    known = known_data(run.metrics)
    if differs := describe_difference(known, prepared):
        print(f"{run.path}: {differs}", file=sys.stderr)
        notes = [differs, *notes]
    examples = list(read_examples(prepared))
    pipeline = Pipeline(config.data, config.encoder, captioner.encoder.cached_shape, tokenizer)
    batches = pipeline.validation(prepared, config.decoding.batch_size)
    decoder = TextDecoder(captioner, tokenizer, config.decoding, config.seed)
    images = caption_images(decoder, batches, examples)
    training = training_split(config, captioner.encoder, known)
    captions = training.captions if training is not None else None
    scores = score_images(images, config, fact_checker, captions, dual_encoder)

    comparison = StageComparison()
    # One sample per image has no diversity.
    samples = max(config.decoding.samples, 2)
    grid = FINE if sweep else COARSE
    frontier = Frontier(batches, examples, fact_checker, samples, config.seed, grid)
    if sweep or (len(stages_of(run, config)) > 1 and config.decoding.samples > 1):
        comparison = compare_stages(run, config, decoder, frontier, fact_checker)
        scores.add(comparison.scores)
    if critic := load_critic(run, config, captioner.generator):
        judged, comparison.curves[CRITICS_CHOICE] = judge(decoder, critic, frontier)
        scores.add(judged)
    if fact_checker:
        training_examples = list(read_examples(prepared_splits["train"]))
        scores.add(Scores({**baselines(examples, training_examples, fact_checker)}))

    evaluation = Evaluation.of_scores(split, images, scores, config, comparison.curves)
    notes = list(dict.fromkeys([*notes, *prepared.notes, *prepared.skipped]))
    data = {part.split: describe_data(part) for part in (training, prepared) if part is not None}
    command = ["python", "-m", "caption_gan.evaluate", str(run.path), "--split", split, *changes]
    samples_shown = stage_samples(images, comparison.samples, frontier)
    _write(run, config, evaluation, samples_shown, data, notes, shlex.join(command))
    return evaluation


def _write(
    run: RunDirectory,
    config: Config,
    evaluation: Evaluation,
    samples: Sequence[StageSamples],
    data: Mapping[str, Any],
    notes: Sequence[str],
    command: str,
) -> None:
    split, history = evaluation.split, run.read_history()
    files = result_files(run, config)
    files.folder.mkdir(parents=True, exist_ok=True)
    previous = json.loads(files.metrics.read_text()) if files.metrics.is_file() else {}
    current = evaluation.to_json()
    merged = _of_other_splits(previous, split) | current
    for group in ("intervals", "not_run"):
        merged[group] = _of_other_splits(previous.get(group, {}), split) | current[group]
    for group in ("collapsed", "notes"):
        merged[group] = previous.get(group, {}) | {split: current[group]}
    merged["weights"] = previous.get("weights", {}) | {split: run.weights_digest()}
    merged["data"] = previous.get("data", {}) | data
    if evaluation.frontier:
        merged["frontier"] = previous.get("frontier", {}) | {split: evaluation.frontier}
    write_json(files.metrics, merged | {"history": history})
    with replacing(files.captions) as temporary, temporary.open("w", encoding="utf-8") as file:
        for image in evaluation.images:
            file.write(json.dumps(image.to_json(), ensure_ascii=False) + "\n")
    write_report(
        files.report,
        title=f"{config.data.source}, {split}: {run.name}",
        command=command,
        settings=dump_config(config),
        metrics=evaluation.scores.values,
        intervals=evaluation.intervals,
        not_run=evaluation.scores.not_run,
        history=history,
        step_curves=run.read_step_curves(),
        parameters=run.read_parameters(),
        frontier=evaluation.frontier,
        stage_samples=samples,
        images=evaluation.images,
        notes=notes,
        collapsed=evaluation.collapsed,
        metric_notes=evaluation.scores.notes,
    )


def _of_other_splits(values: Mapping[str, Any], split: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith(f"{split}/")}


def output_paths(run: RunDirectory, config: Config) -> str:
    """Where the results of a run are and how to use it, for the terminal."""
    files = result_files(run, config)
    paths = {
        "report": files.report,
        "metrics": files.metrics,
        "captions": files.captions,
        "TensorBoard": shlex.join(["tensorboard", "--logdir", str(run.logs)]),
        "your own images": f"python -m caption_gan.caption {shlex.quote(str(run.path))} IMAGE...",
    }
    return "\n".join(f"{name + ':':18}{path}" for name, path in paths.items())
