"""The flags of the server: all of TensorFlow Serving's, wrong values, combinations, help."""

import logging
import re
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.flags import WITHOUT_EFFECT, parse_flags, versions
from serving.monitoring import Monitoring
from serving.server import load_options

# Each flag of tensorflow_model_server 2.20 with a value.
ENGINE_FLAGS = (Path(__file__).parent / "engine_flags.txt").read_text().split()
BASE = "--model_base_path=/models/m"


@pytest.mark.parametrize("flag", ENGINE_FLAGS)
def test_each_flag_of_tensorflow_serving_is_used_or_has_a_reason(flag, caplog):
    """A given value is parsed; a flag without an effect is named in one line of warning."""
    name, _, value = flag.partition("=")
    caplog.set_level(logging.WARNING)
    needed = [BASE, "--enable_batching=true"] if name == "batching_parameters_file" else [BASE]
    options = parse_flags([*needed, f"--{flag}"])
    default = parse_flags([BASE])
    if name in WITHOUT_EFFECT:
        assert [message.partition(" ")[0] for message in caplog.messages] == [f"--{name}"]
    else:
        assert not caplog.messages
        changes = getattr(options, name) != getattr(default, name)
        assert changes or value in ("0", "false", "default")


def test_values_are_typed():
    options = parse_flags([BASE, *(f"--{flag}" for flag in ENGINE_FLAGS)])
    assert options.rest_api_timeout_in_ms == 0
    assert options.load_retry_interval_micros == -1
    assert options.grpc_channel_arguments == (
        ("grpc.max_concurrent_streams", 2),
        ("grpc.primary_user_agent", "me"),
    )
    assert str(options.model_config_file) == "/etc/models.config"
    options.tensorflow_session_config_file = None
    loading = load_options(options, Monitoring())
    assert loading.tags == ("serve", "gpu")
    assert (loading.warm_ups, loading.max_retries, loading.retry_seconds) == (0, 0, 0)
    assert (loading.threads, loading.unload_threads) == (2, 2)


def test_session_options(tmp_path):
    config = tmp_path / "session.config"
    config.write_text("intra_op_parallelism_threads: 5 allow_soft_placement: true")

    def session(*flags: str):
        return load_options(parse_flags([BASE, *flags]), Monitoring()).session_config

    alone = session("--tensorflow_session_parallelism=3")
    assert (alone.intra_op_parallelism_threads, alone.inter_op_parallelism_threads) == (3, 3)
    # As in TensorFlow Serving, either of the two replaces the common number.
    mixed = session("--tensorflow_session_parallelism=3", "--tensorflow_intra_op_parallelism=2")
    assert (mixed.intra_op_parallelism_threads, mixed.inter_op_parallelism_threads) == (2, 0)
    read = session(f"--tensorflow_session_config_file={config}")
    assert (read.intra_op_parallelism_threads, read.allow_soft_placement) == (5, True)
    gpu = session("--per_process_gpu_memory_fraction=0.5")
    assert gpu.gpu_options.per_process_gpu_memory_fraction == 0.5


def test_warm_ups():
    assert load_options(parse_flags([BASE]), Monitoring()).warm_ups == 1
    repeated = parse_flags([BASE, "--num_request_iterations_for_warmup=4"])
    assert load_options(repeated, Monitoring()).warm_ups == 4


def test_unknown_flags_do_not_stop_the_server(capsys, caplog):
    options = parse_flags([BASE, "--use_saved_model=true", "--por=1"])
    assert options.port == 8500
    assert "--rest_api_port" in capsys.readouterr().err  # The usage.
    (message,) = caplog.messages
    assert "unknown argument: --use_saved_model=true --por=1" in message


@pytest.mark.parametrize(
    "flag",
    [
        "--port=65536", "--enable_batching=yes", "--grpc_max_threads=0",
        "--rest_api_timeout_in_ms=2147483648", "--grpc_channel_arguments=grpc.x",
    ],
)  # fmt: skip
def test_wrong_values_are_rejected(flag, capsys):
    with pytest.raises(SystemExit) as raised:
        parse_flags([BASE, flag])
    assert raised.value.code == 2
    assert flag.partition("=")[0] in capsys.readouterr().err


def test_parallelism_is_configured_in_one_way():
    numbers = [f"--tensorflow_{kind}_parallelism=2" for kind in ("session", "intra_op", "inter_op")]
    with pytest.raises(ServingError, match="You cannot configure all"):
        parse_flags([BASE, *numbers])


def test_the_version_needs_no_model():
    assert parse_flags(["--version"]).version
    assert re.match(r"TensorFlow ModelServer: \d.*\nTensorFlow Library: \d", versions())
