"""Tests of reading configuration files in protobuf text format."""

import os

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.config_files import (
    read_batching_parameters,
    read_model_config,
    read_monitoring_config,
    read_ssl_config,
)
from serving.errors import ServingError
from serving.flags import parse_flags
from serving.server import model_server_config

READERS = (read_batching_parameters, read_model_config, read_monitoring_config, read_ssl_config)
PEM = "-----BEGIN\\nSECRET\\n-----END\\n"
MODEL = 'config {{ name: "{}" base_path: "{}" model_platform: "tensorflow" }}'


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "a.config"
        path.write_text(text, "utf-8")
        return path

    return write


def integer_fields(parameters) -> dict[str, int]:
    fields = {field.name: value for field, value in parameters.ListFields()}
    return {name: fields[name].value for name in RANGES}


def error_of(reader, path) -> str:
    with pytest.raises(ServingError) as raised:
        reader(path)
    message = str(raised.value)
    assert "\n" not in message
    return message


RANGES = {
    "max_batch_size": st.integers(1, 1 << 40),
    "batch_timeout_micros": st.integers(0, (1 << 63) - 1),
    "max_enqueued_batches": st.integers(1, 1 << 40),
    "num_batch_threads": st.integers(1, 1024),
}


@settings(deadline=None)
@given(
    values=st.fixed_dictionaries(RANGES),
    pad=st.booleans(),
    splits=st.booleans(),
    data=st.data(),
)
def test_batching_parameters_are_read(tmp_path_factory, values, pad, splits, data):
    largest = values["max_batch_size"]
    execution = (
        data.draw(st.integers(1, largest), "max_execution_batch_size") if splits else largest
    )
    allowed = sorted({*data.draw(st.lists(st.integers(1, execution)), "allowed"), execution})
    text = "".join(f"{name} {{ value: {value} }}  # why\n" for name, value in values.items())
    text += "".join(f"allowed_batch_sizes: {size}\n" for size in allowed)
    text += f'thread_pool_name {{ value: "pool" }} pad_variable_length_inputs: {str(pad).lower()}\n'
    if splits:
        text += "enable_large_batch_splitting { value: true }"
        text += f"max_execution_batch_size {{ value: {execution} }}"
    path = tmp_path_factory.getbasetemp() / "batching.config"
    path.write_text(text)
    parameters = read_batching_parameters(path)
    assert integer_fields(parameters) == values
    assert parameters.thread_pool_name.value == "pool"
    assert list(parameters.allowed_batch_sizes) == allowed
    assert parameters.pad_variable_length_inputs is pad
    assert parameters.enable_large_batch_splitting.value is splits
    assert parameters.max_execution_batch_size.value == execution


def test_missing_batching_parameters_are_tensorflow_serving_s_defaults(write):
    expected = {
        "max_batch_size": 1000,
        "batch_timeout_micros": 0,
        "max_enqueued_batches": 10,
        "num_batch_threads": os.cpu_count(),
    }
    for parameters in (read_batching_parameters(None), read_batching_parameters(write(""))):
        assert integer_fields(parameters) == expected
        assert not parameters.allowed_batch_sizes
        assert not parameters.enable_large_batch_splitting.value
        assert parameters.max_execution_batch_size.value == 1000


def test_max_execution_batch_size_needs_splitting(write):
    for splitting, expected in (("", 32), ("enable_large_batch_splitting { value: true }", 8)):
        text = "max_batch_size { value: 32 } max_execution_batch_size { value: 8 }"
        assert (
            read_batching_parameters(write(text + splitting)).max_execution_batch_size.value
            == expected
        )
    parameters = read_batching_parameters(write("enable_large_batch_splitting { value: true }"))
    assert parameters.max_execution_batch_size.value == 1000


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("max_batch_size { value: 0 }", "expected max_batch_size to be at least 1, got 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros to be at least 0, got -1"),
        ("max_enqueued_batches { value: 0 }", "max_enqueued_batches to be at least 1, got 0"),
        ("num_batch_threads { value: 0 }", "num_batch_threads to be 1 to 1024, got 0"),
        ("num_batch_threads { value: 9999 }", "num_batch_threads to be 1 to 1024, got 9999"),
        (
            "max_batch_size { value: 4 } enable_large_batch_splitting { value: true } "
            "max_execution_batch_size { value: 5 }",
            "max_execution_batch_size to be 1 to 4, got 5",
        ),
        ("allowed_batch_sizes: [8, 8, 1000]", "to increase, got [8, 8, 1000]"),
        ("allowed_batch_sizes: [0, 1000]", "to be positive and to increase, got [0, 1000]"),
        ("allowed_batch_sizes: 8", "last of allowed_batch_sizes to be max_batch_size, 1000, got 8"),
        (
            "allowed_batch_sizes: 8 enable_large_batch_splitting { value: true } "
            "max_execution_batch_size { value: 9 }",
            "last of allowed_batch_sizes to be max_execution_batch_size, 9, got 8",
        ),
    ],
)
def test_values_out_of_range(write, text, error):
    path = write(text)
    assert error_of(read_batching_parameters, path).startswith(f"{path}: ")
    assert error_of(read_batching_parameters, path).endswith(error)


@pytest.mark.parametrize(
    ("text", "line", "token"),
    [
        ("\nmax_batch: 3", 2, "max_batch"),
        ("max_batch_size: 3", 1, "{"),
        ("\n\nmax_batch_size { value: many }", 3, "many"),
        ("max_batch_size { value: 9223372036854775808 }", 1, "9223372036854775808"),
        ("max_batch_size { value: 3", 1, "}"),
        ("pad_variable_length_inputs { value: true }", 1, ":"),
    ],
)
def test_a_parse_error_names_the_line_and_shows_an_example(write, text, line, token):
    path = write(text)
    message = error_of(read_batching_parameters, path)
    # Clients of TensorFlow Serving look for these words.
    start = f"Error parsing text-format tensorflow.serving.BatchingParameters: {line}:"
    assert message.startswith(start)
    reason, _, example = message.removeprefix(start).partition("; expected ")
    assert token in reason
    assert reason.endswith(f" in {path}")
    # The example in the message parses.
    example = example.replace(" 8", " 1000")
    assert read_batching_parameters(write(example)).thread_pool_name.value == "text"


@pytest.mark.parametrize(
    ("text", "enable", "expected"),
    [
        ("", False, "/monitoring/prometheus/metrics"),
        ("prometheus_config { enable: true }", True, "/monitoring/prometheus/metrics"),
        ('prometheus_config: { enable: true, path: "/x" }', True, "/x"),
    ],
)
def test_monitoring_config(write, text, enable, expected):
    config = read_monitoring_config(write(text)).prometheus_config
    assert (config.enable, config.path) == (enable, expected)


def test_a_metrics_path_must_begin_with_a_slash(write):
    message = error_of(read_monitoring_config, write('prometheus_config { path: "x" }'))
    assert message.endswith("expected a path that begins with /, got 'x'")


def test_ssl_config(write):
    key_and_certificate = f'server_key: "{PEM}" server_cert: "-----B" "EGIN"'
    config = read_ssl_config(write(key_and_certificate))
    assert config.server_key == "-----BEGIN\nSECRET\n-----END\n"
    assert (config.server_cert, config.custom_ca, config.client_verify) == ("-----BEGIN", "", False)
    verifying = read_ssl_config(write(key_and_certificate + 'custom_ca: "ca" client_verify: true'))
    assert (verifying.custom_ca, verifying.client_verify) == ("ca", True)
    message = error_of(read_ssl_config, write(f"{key_and_certificate} client_verify: true"))
    assert message.endswith("expected custom_ca (PEM) to verify clients; got none")
    message = error_of(read_ssl_config, write(f'server_key: "{PEM}"'))
    assert message.endswith("expected server_cert (PEM); got none")


@pytest.mark.parametrize(
    "text",
    [
        "server_key: -----BEGIN SECRET",
        'server_key: "SECRET',
        'server_key: "-----BEGIN"\nSECRET\n',
        'server_key { value: "SECRET" }',
        'client_verify: "SECRET"',
        'server_key: "SECRET" server_key: "SECRET"',
    ],
)
def test_errors_do_not_show_a_private_key(write, text):
    message = error_of(read_ssl_config, write(text))
    assert "SECRET" not in message
    assert 'expected server_key: "text", server_cert: "text"' in message


def test_model_config(write):
    models = f"model_config_list {{ {MODEL.format('a', '/a')} {MODEL.format('b', '/b')} }}"
    config = read_model_config(write(models))
    assert [model.base_path for model in config.model_config_list.config] == ["/a", "/b"]
    assert text_format.Parse(models, type(config)()) == config


def test_folders_are_relative_to_the_working_directory(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    models = [MODEL.format("a", "models/a"), MODEL.format("b", "~/b")]
    config = read_model_config(write(f"model_config_list {{ {' '.join(models)} }}"))
    paths = [model.base_path for model in config.model_config_list.config]
    assert paths == [f"{tmp_path}/models/a", "/home/somebody/b"]
    flags = parse_flags(["--model_base_path=models/a", "--ssl_config_file=~/s"])
    (model,) = model_server_config(flags).model_config_list.config
    assert (model.base_path, str(flags.ssl_config_file)) == (paths[0], "/home/somebody/s")


@pytest.mark.parametrize(
    ("models", "error"),
    [
        ("", "got no model_config_list"),
        (MODEL.format("a", "/a") * 2, "Illegal to list model a multiple times in config list"),
        (MODEL.format("", "/a"), "Expected a name for the model in '/a'; got none"),
        (MODEL.format("a", "gs://a"), "to have an absolute path; got base_path()=gs://a"),
        (MODEL.format("a", ""), "to have an absolute path; got base_path()="),
    ],
)
def test_a_wrong_model_config(write, models, error):
    path = write(f"model_config_list {{ {models} }}" if models else "")
    message = error_of(read_model_config, path)
    assert message.startswith(f"{path}: ")
    assert message.endswith(error)


@pytest.mark.parametrize("reader", READERS)
def test_unreadable_files(tmp_path, reader):
    missing = tmp_path / "missing"
    message = error_of(reader, missing)
    assert message == f"{missing} cannot be read: No such file or directory"
    assert "cannot be read: Is a directory" in error_of(reader, tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    assert "expected text in UTF-8" in error_of(reader, tmp_path / "binary")


WORDS = """max_batch_size model_config_list config server_key prometheus_config enable path value
    { } : [ ] , 1 -1 1e9 "text" 'text' true # name custom_model_config [type.googleapis.com/a.B] "
    version_labels key"""


@settings(max_examples=300, deadline=None)
@given(words=st.lists(st.sampled_from([*WORDS.split(), "\n"]) | st.text(max_size=5)))
def test_any_text_is_read_or_is_a_one_line_error(tmp_path_factory, words):
    path = tmp_path_factory.getbasetemp() / "any.config"
    path.write_bytes(" ".join(words).encode(errors="surrogatepass"))
    for reader in READERS:
        try:
            reader(path)
        except ServingError as error:
            assert "\n" not in str(error)
