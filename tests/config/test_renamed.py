"""Former names of settings are answered with the present ones."""

import dataclasses
from typing import Any

import pytest
import yaml

from caption_gan.config.renamed import RENAMED, RENAMED_VALUES
from caption_gan.config.run import Config
from caption_gan.errors import UsageError
from caption_gan.run import RunDirectory
from caption_gan.settings import config_parser, read_config


def names_of(settings: Any, prefix: str = "") -> set[str]:
    names = set()
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        names.add(prefix + field.name)
        if dataclasses.is_dataclass(value):
            names |= names_of(value, f"{prefix}{field.name}.")
    return names


def call(arguments: list[str], capsys) -> str:
    """Returns the answer to a wrong call."""
    with pytest.raises(SystemExit) as ended:
        read_config(arguments, "fit")
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_present_names_are_settings_and_former_names_are_not():
    settings = names_of(Config())
    assert set(RENAMED.values()) | set(RENAMED_VALUES) <= settings
    assert settings.isdisjoint(RENAMED)


@pytest.mark.parametrize("former", RENAMED)
def test_a_flag_with_a_former_name(former, capsys):
    for arguments in ([f"--{former}=1"], ["--seed=1", f"--{former}", "1"]):
        assert call(arguments, capsys).startswith(f"fit: {former} is now called {RENAMED[former]}")


@pytest.mark.parametrize("former", RENAMED)
def test_a_file_with_a_former_name(former, tmp_path, capsys):
    group, name = former.split(".")
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({group: {name: 1}}))
    answer = f"{former} is now called {RENAMED[former]}"
    assert call([f"--config={path}"], capsys).startswith(f"fit: {answer}")

    run = RunDirectory(tmp_path)
    path.rename(run.config)
    with pytest.raises(UsageError) as error:
        run.read_config()
    assert str(error.value).startswith(f"{run.config}: {answer}")


@pytest.mark.parametrize(
    ("setting", "former"),
    [(setting, former) for setting, values in RENAMED_VALUES.items() for former in values],
)
def test_a_former_value(setting, former, capsys):
    present = RENAMED_VALUES[setting][former]
    answer = f"fit: {setting} {former} is now called {present}\n"
    assert call([f"--{setting}={former}"], capsys) == answer
    parser = config_parser("fit")
    parser.parse_args([f"--{setting}={present}"])


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        ("--wgan_gp.epochs=0", "wgan_gp.epochs: expected a value >0; got 0"),
        ("--wgan_gp.epochs=x", "wgan_gp.epochs: expected an integer; got 'x'"),
        ("--decoding.top_p=2", "decoding.top_p: expected a value >=0 and <=1; got 2"),
        ("--jit_compile=maybe", "jit_compile: expected true or false; got maybe"),
        ("--strategy=tpu", "strategy: expected one of 'one_device', 'mirrored', 'multi_worker'"),
        ("--generator.dropuot=0", "Did you mean generator.dropout?"),
        ("--foo=0", "unrecognized arguments: --foo=0. Valid here: checkpoint_minutes"),
    ],
)
def test_a_wrong_value_or_name(argument, answer, capsys):
    assert answer in call([argument], capsys)


def test_an_unknown_setting_in_a_file(tmp_path, capsys):
    path = tmp_path / "settings.yaml"
    path.write_text("generator: {dropuot: 0}")
    assert "Did you mean generator.dropout?" in call([f"--config={path}"], capsys)
    path.write_text("sead: 0")
    assert "Did you mean seed?" in call([f"--config={path}"], capsys)
