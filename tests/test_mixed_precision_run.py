"""A run trained in mixed precision is saved and scored in float32."""

import json
import sys
from pathlib import Path

import keras
import pytest

from caption_gan.evaluation.runs import evaluate_run
from caption_gan.fit import fit, resolve
from caption_gan.run import RunDirectory, load_run
from tests.programs import SMALL


@pytest.mark.slow
@pytest.mark.parametrize("ema_momentum", [0, 0.9])
def test_metrics_are_computed_in_float32(ema_momentum, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # Without Java.
    settings = [
        *SMALL,
        f"--run_dir={tmp_path / 'run'}",
        f"--data.cache={tmp_path / 'cache'}",
        "--precision=mixed_float16",
        "--maximum_likelihood.epochs=1",
        f"--maximum_likelihood.ema_momentum={ema_momentum}",
        "--logging.images=0",
    ]
    fit(*resolve(settings))
    run = RunDirectory(tmp_path / "run")
    assert keras.config.dtype_policy().name == "float32"
    expected = json.loads(run.metrics.read_text())["val/greedy/CIDEr"]

    config, tokenizer, captioner = load_run(run.path)
    assert config.precision == "mixed_float16"
    assert captioner.generator.reader.compute_dtype == "float32"
    assert captioner.encoder.stem.compute_dtype == "float32"
    evaluate_run(run, config, tokenizer, captioner, "val")
    assert json.loads(run.metrics.read_text())["val/greedy/CIDEr"] == expected
