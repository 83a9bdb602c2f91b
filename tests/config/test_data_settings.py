"""Settings that are refused by themselves, and files of settings that are no text."""

import pytest

import caption_gan
from caption_gan.errors import UsageError


@pytest.mark.parametrize("name", ["cp12522", "base64", ""])
def test_an_unknown_encoding_is_refused_at_once(name):
    with pytest.raises(UsageError, match=r"data\.encoding: expected a text encoding .* cp1252"):
        caption_gan.fit(data={"encoding": name})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"# caf\xe9\nseed: 1\n", "line 1: .*iconv -f cp1252"),
        ("seed: 1\n".encode("utf-16"), "is utf-16; save it as UTF-8"),
        (b"<<<<<<< HEAD\nseed: 1\n", "line 1: '<<<<<<< HEAD' is a conflict marker"),
    ],
)
def test_a_file_of_settings_that_is_no_utf_8_is_refused(tmp_path, content, words):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"settings\.yaml.*{words}"):
        caption_gan.fit(path)
