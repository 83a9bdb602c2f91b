"""Checkpoints are atomic, detect damage, and survive a full disk."""

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.errors import CaptionGANError
from caption_gan.storage.atomic import remove_unfinished, replacing
from caption_gan.training.checkpoints import TrainingCheckpoint
from caption_gan.training.loop import Position


def model(seed: int = 0, units: int = 300, layers: int = 1) -> keras.Model:
    keras.utils.set_random_seed(seed)
    dense = [keras.layers.Dense(units) for _ in range(layers)]
    model = keras.Sequential([keras.layers.Input((20,)), *dense, keras.layers.Dropout(0.1)])
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def checkpoint_of(
    directory: Path, seed: int = 0, minutes: float = 5.0, **settings
) -> TrainingCheckpoint:
    network = model(seed, **settings)
    variables = {"model": network.variables, "optimizer": network.optimizer.variables}
    checkpoint = TrainingCheckpoint(directory, variables, minutes)
    checkpoint.set_params({"steps": 10})
    return checkpoint


@pytest.fixture
def saved(tmp_path) -> Path:
    """A folder with two checkpoints: at the start, and after an epoch in which weights doubled."""
    first = checkpoint_of(tmp_path / "stage")
    first.on_train_begin()
    double(first)
    first.on_epoch_end(0)
    return tmp_path / "stage"


def double(of: TrainingCheckpoint) -> None:
    for value in of.checkpoint.model:
        if value.dtype == tf.float32:
            value.assign(2 * value)


def weights(of: TrainingCheckpoint) -> np.ndarray:
    return of.checkpoint.model[0].numpy()


def test_without_checkpoints_nothing_is_done(tmp_path):
    assert checkpoint_of(tmp_path / "stage").restore() == Position(0, 0)


def test_the_newest_checkpoint_is_restored(saved):
    restored = checkpoint_of(saved, seed=1)
    assert restored.restore() == Position(1, 0)
    expected = checkpoint_of(saved.with_name("other"))
    double(expected)
    assert np.array_equal(weights(restored), weights(expected))


def test_two_checkpoints_are_kept(saved):
    continued = checkpoint_of(saved)
    continued.restore()
    for epoch in (1, 2):
        continued.on_epoch_end(epoch)
    assert [path.name[:11] for path in continued.saved] == ["epoch-00002", "epoch-00003"]


def test_checkpoints_within_an_epoch(saved, monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    continued = checkpoint_of(saved, minutes=2)
    continued.restore()
    written = []
    for batch in range(10):
        continued.on_train_batch_end(batch)
        if continued.saved[-1].name not in written:
            written.append(continued.saved[-1].name)
        now += 59
    # None after the last step: on_epoch_end writes it.
    assert [int(name[-3:]) for name in written] == [0, 4, 7]
    assert checkpoint_of(saved).restore() == Position(1, 7)


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 3
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def zeroed(content: bytes) -> bytes:
    """Returns what a power failure may leave: the length without the content."""
    return bytes(len(content))


@pytest.mark.parametrize("harm", [truncated, flipped, zeroed, lambda content: None])
@pytest.mark.parametrize("kind", ["index", "data-00000-of-00001"])
def test_a_damaged_checkpoint_is_skipped_with_a_message(
    saved, kind: str, harm: Callable[[bytes], bytes | None], capsys
):
    before, newest = checkpoint_of(saved).saved
    file = newest / f"state.{kind}"
    content = harm(file.read_bytes())
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    restored = checkpoint_of(saved, seed=1)
    assert restored.restore() == Position(0, 0)
    assert np.array_equal(weights(restored), weights(checkpoint_of(saved.with_name("other"))))
    assert f"{newest} is damaged and is skipped" in capsys.readouterr().err
    assert restored.saved == [before]


def test_an_error_if_all_checkpoints_are_damaged(saved):
    for path in checkpoint_of(saved).saved:
        (path / "state.index").write_bytes(b"")
    with pytest.raises(CaptionGANError, match=r"none of the checkpoints .* Remove that folder"):
        checkpoint_of(saved).restore()
    assert len(checkpoint_of(saved).saved) == 2


@pytest.mark.parametrize("other", [{"units": 301}, {"layers": 2}])
def test_a_checkpoint_of_another_model_is_refused_and_stays(saved, other):
    with pytest.raises(CaptionGANError, match="does not fit the settings"):
        checkpoint_of(saved, **other).restore()
    assert checkpoint_of(saved).restore() == Position(1, 0)


def test_a_full_disk_loses_no_saved_checkpoint(saved):
    continued = checkpoint_of(saved)
    continued.restore()
    double(continued)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(
            CaptionGANError, match=r"cannot save to .*Earlier checkpoints are intact"
        ):
            continued.on_epoch_end(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(list(saved.iterdir())) == 2
    assert checkpoint_of(saved).restore() == Position(1, 0)
    # With space on the disk again.
    continued.on_epoch_end(1)
    assert checkpoint_of(saved).restore() == Position(2, 0)


def test_unfinished_files_of_a_killed_process_are_removed(tmp_path):
    stage = tmp_path / "checkpoints" / "stage"
    stage.mkdir(parents=True)
    with replacing(stage / "a") as folder, replacing(tmp_path / "b") as file:
        folder.mkdir()
        (folder / "state").write_text("half")
        file.write_text("half")
        shutil.copytree(folder, folder.with_name(f"{folder.name}-of-another"))
        shutil.copy(file, file.with_name(f"{file.name}-of-another"))
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "a",
        "b",
        "checkpoints",
        "stage",
        "state",
    ]


def test_content_is_flushed_before_the_rename(tmp_path, monkeypatch):
    """Otherwise a power failure could leave an empty file under the final name."""
    done: list[str] = []
    for name in ("fsync", "replace"):
        original = getattr(__import__("os"), name)

        def recorded(*arguments, name=name, original=original):
            done.append(name)
            return original(*arguments)

        monkeypatch.setattr(f"os.{name}", recorded)
    with replacing(tmp_path / "folder") as folder:
        folder.mkdir()
        (folder / "one").write_text("1")
        (folder / "two").write_text("2")
    assert done == ["fsync", "fsync", "fsync", "replace", "fsync"]
