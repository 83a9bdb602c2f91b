"""Adversarial stages from the command line to the report."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.evaluation import critic_judgement, runs
from caption_gan.evaluation.frontier import Grid
from caption_gan.evaluation.stage_comparison import load_critic
from caption_gan.run import RunDirectory, load_run, save_weights
from tests.programs import SMALL, call

STAGES = ("wgan_gp", "policy_gradient", "self_critical")
# Two critic updates per step. The captions of the small generator are never healthy, so the bounds
# are off.
ADVERSARIAL = [
    "--text.sequence_length=8",  # Unrolled recurrences take long to compile.
    "--logging.images=0",
    "--monitor.repeated_token_rate=1",
    "--monitor.mbleu=1",
    "--monitor.distinct_captions=0",
    "--monitor.distinct_2=0",
    "--monitor.vocabulary=0",
    "--monitor.image_dependence=0",
    *(f"--{stage}.{setting}" for stage in STAGES for setting in ("epochs=2", "batch_size=8")),
    *(f"--{stage}.critic_updates=2" for stage in STAGES),
    *(f"--{stage}.critic_warmup_steps=1" for stage in STAGES),
    *("--self_play.epochs=2", "--self_play.batch_size=8", "--self_play.opponent_steps=2"),
]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    cache = tmp_path_factory.mktemp("cache")
    return [*SMALL, f"--data.cache={cache}", "--maximum_likelihood.epochs=1"]


@pytest.fixture(scope="module", autouse=True)
def few_points():
    """Makes frontiers of few points, each of which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "COARSE", Grid((0.5, 1.0), (0.7,)))
        patch.setattr(critic_judgement, "CANDIDATES", (1, 2))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, arguments) -> RunDirectory:
    """Returns a run with two stages."""
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "run")
    stages = "--stages=[maximum_likelihood,policy_gradient]"
    epochs = "--policy_gradient.epochs=1"
    done = call("fit", *arguments, *ADVERSARIAL, epochs, stages, f"--run_dir={run.path}")
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.slow
def test_a_stage_with_lora_leaves_an_ordinary_captioner(tmp_path, arguments):
    done = call(
        "fit",
        *arguments,
        *ADVERSARIAL,
        *("--stages=[maximum_likelihood,self_play]", "--generator.kind=transformer"),
        *("--generator.rematerialize=true", "--self_play.accumulation_steps=2"),
        *("--self_play.lora_rank=2", "--self_play.epochs=1", f"--run_dir={tmp_path / 'run'}"),
    )
    assert done.returncode == 0, done.stderr
    # Two matrices of a rank are far fewer than the weights of the generator.
    trained, frozen = RunDirectory(tmp_path / "run").read_parameters()["1-self_play"]["generator"]
    assert 0 < trained < frozen / 3
    _, _, captioner = load_run(tmp_path / "run")
    assert not captioner.generator.lora_rank
    before = RunDirectory(tmp_path / "run").checkpoints / "0-maximum_likelihood.weights.h5"
    after = [np.array(weight) for weight in captioner.generator.weights]
    captioner.load_weights(before)
    changed = [
        weight.path.split("/")[1]
        for weight, now in zip(captioner.generator.weights, after, strict=True)
        if not np.array_equal(weight, now)
    ]
    assert set(changed) == {"block_0", "block_1"}

    exported = call("export", tmp_path / "run", "--json")
    assert exported.returncode == 0, exported.stderr
    served = tf.saved_model.load(json.loads(exported.stdout)["saved_model"])
    names = [
        operation.name
        for signature in served.signatures.values()
        for operation in signature.graph.get_operations()
    ]
    assert names and not [name for name in names if "lora" in name]


def test_the_frontier_of_both_stages_and_of_the_critic(trained):
    metrics = json.loads(trained.metrics.read_text())
    curves, stages = metrics["frontier"]["val"], ["1-policy_gradient", "0-maximum_likelihood"]
    named = [name for stage in stages for name in (stage, f"{stage}, top-p")]
    assert list(curves) == [*named, "critic's choice"]
    for name, points in curves.items():
        axis = "top_p" if "top-p" in name else "temperature"
        axis = "drawn" if name == "critic's choice" else axis
        assert len({point[axis] for point in points}) == len(points) == 2
        assert all({"CIDEr", "mBLEU-4", "fact_accuracy"} <= set(point) for point in points)
    for name in ("sample/critic_auc", "sample/likelihood_auc", "reference/critic_auc"):
        assert 0 <= metrics[f"val/{name}"] <= 1
    # Samples of the first stage are drawn as those of the curve.
    assert metrics["val/0-maximum_likelihood, sample/mBLEU-4"] == pytest.approx(
        curves["0-maximum_likelihood"][-1]["mBLEU-4"], abs=1e-6
    )


def test_the_report_shows_both_stages(trained):
    page = trained.report.read_text()
    for part in ("Quality and diversity", "Samples after each stage", "<strong>margin</strong>"):
        assert part in page
    # Eight images, each with the samples of two stages.
    assert page.count('<ul class="samples">') == 8 * 2


@pytest.mark.slow
def test_earlier_stages_are_scored_with_their_own_weights(trained, tmp_path):
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(trained.path, run.path)
    _, _, captioner = load_run(run.path)
    for weight in captioner.generator.weights:
        weight.assign(tf.random.stateless_normal(weight.shape, [1, 2]))
    save_weights(captioner, run.stage_weights("0-maximum_likelihood"))
    done = call("evaluate", run.path)
    assert done.returncode == 0, done.stderr
    before, after = (json.loads(path.metrics.read_text()) for path in (trained, run))
    figures = ("CIDEr", "BLEU-4", "fact_accuracy", "repeated_token_rate", "mean_length")

    def scores(metrics, name):
        return [metrics[f"val/{name}/{figure}"] for figure in figures]

    control = "0-maximum_likelihood"
    assert scores(before, control) != scores(after, control)
    assert before["frontier"]["val"][control] != after["frontier"]["val"][control]
    assert scores(before, "greedy") == scores(after, "greedy")
    assert control in run.report.read_text()


def test_curves_within_epochs(trained):
    curves = trained.read_step_curves()
    assert list(curves) == ["0-maximum_likelihood", "1-policy_gradient"]
    points = curves["1-policy_gradient"]
    assert [point["epoch"] for point in points] == [0.5, 1.0]
    # The critic warms up for a step, in which the generator has no loss.
    assert ["loss" in point for point in points] == [False, True]
    (epoch,) = trained.read_history()["1-policy_gradient"]
    assert epoch["margin"] == pytest.approx(sum(point["margin"] for point in points) / 2, rel=1e-4)
    assert epoch["loss"] == pytest.approx(points[1]["loss"], rel=1e-4)


def test_curves_hold_the_signs_of_health(trained):
    history = json.loads(trained.metrics.read_text())["history"]
    assert list(history) == ["0-maximum_likelihood", "1-policy_gradient"]
    for figures in history["1-policy_gradient"]:
        assert figures["val_healthy"] == 1
        assert {"margin", "critic_gradient_norm", "val_sample_image_dependence"} <= set(figures)


def test_the_critic_is_kept(trained):
    config, _, captioner = load_run(trained.path)
    critic = load_critic(trained, config, captioner.generator)
    assert critic is not None
    assert float(critic.length_moments[0]) > 0
    without = dataclasses.replace(config, stages=["maximum_likelihood"])
    assert load_critic(trained, without, captioner.generator) is None


@pytest.mark.slow
def test_a_run_that_has_ended_is_only_evaluated(trained):
    before = json.loads(trained.metrics.read_text())["frontier"]["val"]["1-policy_gradient"]
    done = call("fit", f"--run_dir={trained.path}")
    assert done.returncode == 0, done.stderr
    assert "epoch" not in done.stderr
    after = json.loads(trained.metrics.read_text())["frontier"]["val"]["1-policy_gradient"]
    assert before == after


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["wgan_gp", "self_critical", "self_play"])
def test_other_objectives(stage, tmp_path, arguments):
    run = RunDirectory(tmp_path / "run")
    stages = f"--stages=[maximum_likelihood,{stage}]"
    weight = "--self_critical.rewards={critic: 0.5, cider: 0.5}"
    done = call("fit", *arguments, *ADVERSARIAL, weight, stages, f"--run_dir={run.path}")
    assert done.returncode == 0, done.stderr
    assert f"{stage}, epoch 2" in done.stderr
    assert run.stage_weights(f"1-{stage}").is_file()


@pytest.mark.slow
def test_a_collapse_stops_training_with_its_metric(tmp_path, arguments):
    """Training from scratch: the untrained generator repeats tokens."""
    run = RunDirectory(tmp_path / "run")
    done = call(
        *("fit", *arguments, *ADVERSARIAL, "--stages=[policy_gradient]", f"--run_dir={run.path}"),
        *("--policy_gradient.train_encoder=true", "--policy_gradient.critic.start=random"),
        *("--monitor.image_dependence=0.9", "--monitor.every_steps=1", "--monitor.patience=2"),
    )
    assert done.returncode == 1
    assert "Training stopped" in done.stderr
    assert "image_dependence is" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_text_without_images_trains_a_critic(arguments, tmp_path):
    corpus = tmp_path / "more.txt"
    corpus.write_text("the line rises .\nxylophone\n")
    stages = "--stages=[maximum_likelihood,policy_gradient]"
    done = call(
        *("fit", *arguments, *ADVERSARIAL, stages),
        *(f"--run_dir={tmp_path / 'run'}", f"--data.corpora=[{corpus}]"),
    )
    assert done.returncode == 0, done.stderr
    assert "1 sentences of data.corpora are used" in done.stderr
    assert "1 sentences of data.corpora have unknown words: xylophone" in done.stderr
    alone = call("fit", *arguments, f"--data.corpora=[{corpus}]")
    assert alone.returncode == 1
    assert "none of stages ['maximum_likelihood'] has a critic" in alone.stderr
