"""Settings of a continued run: its own are merged with new ones before they are checked."""

import sys

import pytest

import caption_gan
import caption_gan.prepare
from caption_gan.errors import CaptionGANError
from caption_gan.fit import resolve
from caption_gan.run import RunDirectory
from caption_gan.settings import read_config

GAN = "--stages=[maximum_likelihood,wgan_gp]"
GRADIENT = "--stages=[maximum_likelihood,policy_gradient]"
REGIONS = ("--encoder.name=precomputed", "--encoder.regions=R")

# A run's own settings, and new ones that are refused with the defaults but fit the run's.
VALID_WITH_THE_RUNS = {
    "attention_heads": (["--generator.hidden_size=90"], ["--generator.attention_heads=3"]),
    "beam_groups": (["--decoding.beam=4"], ["--decoding.beam_groups=2"]),
    "frozen_up_to": (["--encoder.trainable=true"], ["--encoder.frozen_up_to=block_1"]),
    "regions": (["--encoder.regions=R"], ["--encoder.name=precomputed"]),
    "features": (REGIONS, ["--data.source=features", "--data.root=R"]),
    "stages twice": (
        ["--stages=[wgan_gp]", "--wgan_gp.train_encoder=true"],
        ["--stages+=maximum_likelihood"],
    ),
    "train_encoder": (["--wgan_gp.train_encoder=true"], ["--stages=[wgan_gp]"]),
    "mismatched_negatives": (
        ["--wgan_gp.mismatched_negatives=0"],
        [GAN, "--wgan_gp.batch_size=1", "--wgan_gp.critic_updates=1"],
    ),
    "constraint": (["--wgan_gp.critic_loss=relativistic"], [GAN, "--wgan_gp.constraint=none"]),
    "rewards": (
        ["--self_critical.rewards.critic=0.5"],
        ["--stages=[maximum_likelihood,self_critical]", "--self_critical.rewards.cider=0"],
    ),
}
# A run's own settings, new ones that fit the defaults but not the run's, and words of the error.
REFUSED_WITH_THE_RUNS = {
    "attention_heads": (
        ["--generator.hidden_size=96"],
        ["--generator.attention_heads=5"],
        "does not divide generator.hidden_size 96",
    ),
    "hidden_size": (
        ["--generator.attention_heads=5"],
        ["--generator.hidden_size=96"],
        "attention_heads is 5",
    ),
    "beam": (
        ["--decoding.beam=4", "--decoding.beam_groups=2"],
        ["--decoding.beam=3"],
        "must divide decoding.beam, which is 3",
    ),
    "trainable": (
        ["--encoder.trainable=true", "--encoder.frozen_up_to=block_1"],
        ["--encoder.trainable=false"],
        "encoder.frozen_up_to is 'block_1'",
    ),
    "regions": (REGIONS, ["--encoder.regions=null"], "encoder.regions is not set"),
    "flip": (REGIONS, ["--encoder.flip=true"], "cannot be mirrored"),
    "features": (
        [*REGIONS, "--data.source=features", "--data.root=R"],
        ["--encoder.name=convolutional"],
        "data.source features has regions",
    ),
    "service": (["--strategy=multi_worker"], ["--data.service=a:5050"], "data.service is set"),
    "strategy": (["--data.service=a:5050"], ["--strategy=multi_worker"], "data.service is set"),
    "jit_compile": (["--strategy=mirrored"], ["--jit_compile=true"], "strategy mirrored"),
    "stages twice": ([GAN], ["--stages+=wgan_gp"], "an objective twice"),
    "corpora": (
        [GAN, "--data.corpora=[c.txt]"],
        ["--stages=[maximum_likelihood]"],
        "none of stages",
    ),
    "train_encoder": (
        ["--stages=[wgan_gp]", "--wgan_gp.train_encoder=true"],
        ["--wgan_gp.train_encoder=false"],
        "no stage before it trains",
    ),
    "captions": ([GRADIENT], ["--policy_gradient.captions=1"], "captions is 1"),
    "stages": (["--policy_gradient.captions=1"], [GRADIENT], "captions is 1"),
    "batch_size": ([GAN, "--wgan_gp.critic_updates=1"], ["--wgan_gp.batch_size=1"], "is 1, but"),
    "critic_loss": ([GRADIENT], ["--policy_gradient.critic_loss=wasserstein"], "no lower bound"),
    "rewards": (
        ["--stages=[maximum_likelihood,self_critical]"],
        ["--self_critical.rewards={cider: 0}"],
        "rewards are all 0",
    ),
}


@pytest.fixture
def make_run(tmp_path):
    """Returns a function that makes a run of some settings, without training."""

    def make(settings) -> RunDirectory:
        run = RunDirectory(tmp_path / "run")
        run.path.mkdir()
        run.write_config(read_config([*settings, f"--run_dir={run.path}"], "test"))
        return run

    return make


@pytest.mark.parametrize("rule", VALID_WITH_THE_RUNS)
def test_new_settings_that_fit_the_runs_own(rule, make_run):
    own, new = VALID_WITH_THE_RUNS[rule]
    with pytest.raises(CaptionGANError):
        resolve(new)
    run = make_run(own)
    config, _ = resolve([f"--run_dir={run.path}", "--accept_changes", *new])
    merged = read_config([*own, f"--run_dir={run.path}", *new], "test")
    assert config == merged


@pytest.mark.parametrize("rule", REFUSED_WITH_THE_RUNS)
def test_new_settings_that_do_not_fit_the_runs_own(rule, make_run):
    own, new, words = REFUSED_WITH_THE_RUNS[rule]
    run = make_run(own)
    with pytest.raises(CaptionGANError, match=words):
        resolve([f"--run_dir={run.path}", "--accept_changes", *new])


def test_files_come_between_the_runs_settings_and_single_ones(make_run, tmp_path):
    run = make_run(["--decoding.beam=6", "--decoding.samples=7", "--decoding.top_k=8"])
    for name, text in {
        "groups.yaml": "decoding: {beam_groups: 4, samples: 9}\n",
        "beam.yaml": f"decoding: {{beam: 8}}\nrun_dir: {run.path}\n",
    }.items():
        (tmp_path / name).write_text(text)
    files = [f"--config={tmp_path / name}" for name in ("groups.yaml", "beam.yaml")]
    for arguments in (files, files[::-1]):
        config, found = resolve([*arguments, "--decoding.samples=3"])
        assert found.path == run.path
        decoding = config.decoding
        assert (decoding.beam, decoding.beam_groups) == (8, 4)
        assert (decoding.samples, decoding.top_k) == (3, 8)


def test_an_image_size_that_is_left_to_the_encoder_is_the_runs(make_run, monkeypatch):
    run = make_run(["--encoder.image_height=32", "--encoder.image_width=48"])
    monkeypatch.setattr(RunDirectory, "is_trained", True)
    config, _ = resolve([f"--run_dir={run.path}", "--encoder.image_height=null"])
    assert config.encoder.image_size == (64, 48)
    with pytest.raises(CaptionGANError, match="image_width was 48, is 64"):
        resolve([f"--run_dir={run.path}", "--encoder.image_width=64"])


def test_python_calls_continue_with_the_runs_settings(make_run, monkeypatch):
    monkeypatch.setattr(sys.modules["caption_gan.fit"], "fit", lambda config, run: config)
    run = make_run(["--decoding.beam=4"])
    config = caption_gan.fit(run_dir=run.path, decoding={"beam_groups": 2})
    assert (config.decoding.beam, config.decoding.beam_groups) == (4, 2)
    with pytest.raises(CaptionGANError, match="beam_groups is 3"):
        caption_gan.fit(run_dir=run.path, decoding={"beam_groups": 3})


def test_prepare_reads_the_runs_settings(make_run, monkeypatch):
    run = make_run(["--data.source=scenes", "--data.train_images=7", "--decoding.beam=4"])
    prepared: list = []
    monkeypatch.setattr(
        "caption_gan.prepare.prepare", lambda *arguments: prepared.append(arguments) or []
    )
    monkeypatch.setattr(
        sys, "argv", ["prepare", f"--run_dir={run.path}", "--decoding.beam_groups=2"]
    )
    caption_gan.prepare.main()
    assert (prepared[0][0].data.source, prepared[0][0].data.train_images) == ("scenes", 7)


def test_printed_settings_are_those_of_the_run(make_run, capsys):
    run = make_run(["--data.source=scenes"])
    with pytest.raises(SystemExit):
        resolve(["--print_config", f"--run_dir={run.path}"])
    assert "source: scenes" in capsys.readouterr().out


def test_a_wrong_settings_file_of_the_run_is_named(make_run):
    run = make_run([])
    text = run.config.read_text()
    run.config.write_text(text.replace("mle_weight:", "anchor:"))
    with pytest.raises(CaptionGANError, match=r"run/config.yaml: .* is now called"):
        resolve([f"--run_dir={run.path}"])
