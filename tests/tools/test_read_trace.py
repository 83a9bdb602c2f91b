"""`tools/read_trace.py` on traces of training steps, and on events with times computed by hand."""

import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from caption_gan.config.adversarial import RewardWeights, SelfCriticalConfig, WGANGPConfig
from caption_gan.errors import CaptionGANError
from caption_gan.models.trace_scopes import ENCODER, GENERATOR_UPDATE, PENALTY, REWARD, ROLLOUT
from caption_gan.training.loop import Position, train
from caption_gan.training.objectives.policy_gradient import PolicyGradient
from caption_gan.training.objectives.wgan_gp import WGANGP
from tests.captioners import Bending, captioner

TOOLS = str(Path(__file__).parents[2] / "tools")
UPDATES, PROFILED = 2, (3, 4)
EXPECTED = {
    *[("input",), (ENCODER,), (ROLLOUT,), (GENERATOR_UPDATE,), (GENERATOR_UPDATE, ROLLOUT)],
    *[(f"critic_update {number}",) for number in (1, 2)],
    *[(f"critic_update {number}", PENALTY) for number in (1, 2)],
}


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, TOOLS)
    import read_trace

    yield read_trace
    sys.path.remove(TOOLS)


@pytest.fixture(scope="module")
def events(tool, step_batch, tmp_path_factory):
    """Events of the traced steps of a tiny run."""
    config = WGANGPConfig(batch_size=2, critic_updates=UPDATES, critic_warmup_steps=1)
    model = WGANGP.from_config(captioner(encoder=Bending), config, PROFILED[1], 0)
    return traced(tool, model, step_batch, tmp_path_factory.mktemp("logs"))


def traced(tool, model, step_batch, logs):
    batches = tf.data.Dataset.from_tensor_slices(step_batch).repeat(2)
    batches = batches.batch(2 * UPDATES, drop_remainder=True)
    board = keras.callbacks.TensorBoard(logs, write_graph=False, profile_batch=PROFILED)
    train(model, batches, batches.take(1), 1, [board], Position())
    return tool.read_trace(logs)


@pytest.mark.slow
def test_a_trace_has_all_phases(tool, events):
    steps, length, times = tool.phase_times(events)
    assert steps == PROFILED[1] - PROFILED[0] + 1
    assert set(times) == EXPECTED
    assert all(time > 0 for time in times.values())
    assert sum(time for path, time in times.items() if len(path) == 1) < 1.2 * length


@pytest.mark.slow
@pytest.mark.parametrize("name", [ENCODER, ROLLOUT, PENALTY, GENERATOR_UPDATE])
def test_a_phase_without_its_scope_is_missing(tool, events, name):
    nameless = [event._replace(name=event.name.replace(name, "nameless")) for event in events]
    _, _, times = tool.phase_times(nameless)
    assert EXPECTED - set(times) == {path for path in EXPECTED if name in path}


@pytest.mark.slow
def test_a_trace_has_rewards(tool, step_batch, tmp_path):
    config = SelfCriticalConfig(
        batch_size=2,
        captions=2,
        critic_updates=UPDATES,
        critic_warmup_steps=1,
        rewards=RewardWeights(critic=0.5, cider=0.5),
    )
    references = step_batch["token_ids"][..., 1:].numpy()
    model = PolicyGradient.from_config(
        captioner(encoder=Bending), config, PROFILED[1], 0, references=references
    )
    events = traced(tool, model, step_batch, tmp_path)
    _, _, times = tool.phase_times(events)
    rest = {path for path in EXPECTED if PENALTY not in path and len(path) == 1}
    assert set(times) == {*rest, (REWARD,)}
    assert times[REWARD,] > 0


def test_phase_times_by_hand(tool):
    event = tool.Event
    inside = "StatefulPartitionedCall/while/body/_9/while/critic_update_1"
    events = [
        event("train", 0, 100),
        event("IteratorGetNextOp::DoCompute", 0, 5),
        event(f"{inside}/Mul:Mul", 10, 20),
        event(f"{inside}/penalty/Add:AddV2", 15, 30),
        event(f"gradient_tape/{inside}/gradient_tape/{inside}/penalty/Add:AddV2", 40, 42),
        event("elsewhere/Mul:Mul", 43, 50),
        event(f"{inside}/Mul:Mul", 60, 65),
        event(f"{inside}/Mul:Mul", 150, 190),  # After the step.
        event("train", 200, 300),
    ]
    steps, length, times = tool.phase_times(events)
    assert (steps, length) == (2, 100)
    assert times == {
        ("input",): 2.5,
        ("critic_update 1",): (20 + 2) / 2,
        ("critic_update 1", "penalty"): (15 + 2) / 2,
        ("critic_update 2",): 2.5,
    }
    assert "critic_update 1" in tool.table(events)


def test_critic_updates_outside_of_a_loop_are_numbered(tool):
    event = tool.Event
    events = [
        event("critic_update/Mul:Mul", 0, 10),
        event("replica_1/critic_update/Mul:Mul", 5, 12),
        event("critic_update_4/Mul:Mul", 20, 30),
        event("gradient_tape/replica_1/critic_update_4/penalty/Mul:Mul", 30, 35),
        event("train", 0, 100),
    ]
    _, _, times = tool.phase_times(events)
    assert times == {
        ("critic_update 1",): 12,
        ("critic_update 2",): 15,
        ("critic_update 2", "penalty"): 5,
    }


def test_kinds_by_hand(tool):
    event = tool.Event
    events = [
        event("train", 0, 4e6),
        event("IteratorGetNextOp::DoCompute", 0, 1e6),
        event("rollout/a:Split", 0, 1e6),
        event("rollout/b:Split", 1e6, 2e6),
        event("critic_update/rollout/c:MatMul", 2e6, 3e6),
        event("critic_update/d:MatMul", 3e6, 4e6),
        event("critic_update/e:MatMul", 5e6, 6e6),  # After the step.
    ]
    lines = [line.split() for line in tool.kinds(events, ROLLOUT).splitlines()]
    assert lines == [
        ["total", "of", "rollout", "3", "3.0", "ms"],
        ["Split", "2", "2.0", "ms", "66.7%"],
        ["MatMul", "1", "1.0", "ms", "33.3%"],
    ]
    assert tool.kinds(events, tool.ALL).splitlines()[0].split()[3:] == ["4", "4.0", "ms"]


def test_a_scope_with_the_same_prefix_is_not_a_phase(tool):
    assert tool.phases_of("rollouts/encoder_norm/Mul:Mul") == ()
    assert tool.phases_of("a/rollout_12/while/rollout/Mul:encoder") == (ROLLOUT,)


def test_a_folder_without_a_trace_is_refused(tool, tmp_path):
    with pytest.raises(CaptionGANError, match=r"holds no trace.*--profile_steps"):
        tool.read_trace(tmp_path)
