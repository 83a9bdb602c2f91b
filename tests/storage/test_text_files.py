"""Text files in other encodings, damaged text, and files that are no text."""

import codecs

import pytest

from caption_gan.errors import CaptionGANError
from caption_gan.storage import text_files
from caption_gan.storage.text_guesses import likely_encoding, other_content

TEXT = "0001.jpg,a dog at the café\r\n0002.jpg,ein großer Hund\n"
LINES = ["0001.jpg,a dog at the café", "0002.jpg,ein großer Hund"]


def write(folder, content: bytes) -> str:
    path = folder / "captions.txt"
    path.write_bytes(content)
    return str(path)


def read(path: str, encoding: str | None = "utf-8") -> list[str]:
    """Lines of a file; whole or streamed, they are the same."""
    lines = text_files.lines(text_files.read_text(path, "captions", encoding))
    assert list(text_files.read_lines(path, "captions", encoding)) == lines
    return lines


@pytest.mark.parametrize("setting", [None, "utf-8", "cp1252", "shift_jis"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_utf_8_and_files_with_a_mark_are_read_whatever_the_setting(
    tmp_path, mark, encoding, setting
):
    assert read(write(tmp_path, mark + TEXT.encode(encoding)), setting) == LINES


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "a café"),
        ("latin-1", "a café"),
        ("shift_jis", "赤い四角"),
        ("gb18030", "一只狗"),
        ("utf-16-le", "a café"),
        ("utf-16-be", "a dog"),
        ("iso2022_jp", "赤い四角"),
    ],
)
def test_the_setting_decodes_files_without_a_mark(tmp_path, encoding, text):
    assert read(write(tmp_path, f"{text}\n{text}".encode(encoding)), encoding) == [text, text]


def test_ascii_is_read_whatever_the_setting(tmp_path):
    for encoding in ("cp1252", "shift_jis", "utf-16", "UTF-16LE", "utf-32-be"):
        assert read(write(tmp_path, b"a dog\nruns\n"), encoding) == ["a dog", "runs"]


def test_characters_and_line_ends_may_be_cut_by_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_CHUNK", 5)
    for encoding in ("utf-8", "utf-16", "shift_jis"):
        content = "一只\r\n狗\r\r\n\nx\ry\r".encode(encoding)
        assert read(write(tmp_path, content), encoding) == ["一只", "狗", "", "x", "y"]
    with pytest.raises(CaptionGANError, match=r"line 3: .*xe9"):
        list(text_files.read_lines(write(tmp_path, b"a\nb\ncaf\xe9"), "", "utf-8"))


def test_only_line_ends_end_lines(tmp_path):
    line = "a\u2028b\x85c\x0bd\x0ce\x1cf"
    assert read(write(tmp_path, f"{line}\n\n{line}".encode())) == [line, "", line]
    assert read(write(tmp_path, b"a\rb\r")) == ["a", "b"]
    assert read(write(tmp_path, b"")) == []


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", TEXT),
        ("cp1251", "a.jpg,собака бежит по траве\nb.jpg,Кошка сидит"),
        ("koi8-r", "a.jpg,собака бежит по траве\n"),
        ("cp932", "a.jpg,赤い四角\n"),
        ("euc-jp", "a.jpg,犬が走っている\n"),
        ("cp949", "a.jpg,빨간 사각형\nb.jpg,개가 달린다"),
        ("gb18030", "a.jpg,一只狗在草地上奔跑\n"),
        ("big5", "a.jpg,一隻狗在草地上奔跑\n"),
        ("utf-16-le", "a.jpg,a café\n"),
        ("utf-16-be", "a.jpg,a dog\n"),
        ("utf-32-le", "a dog\n"),
    ],
)
def test_an_error_says_which_encoding_is_likely(tmp_path, encoding, text):
    content = text.encode(encoding)
    assert likely_encoding(content) == encoding
    path = write(tmp_path, content)
    for setting, advice in (
        ("utf-8", f"give --data.encoding={encoding}, or save"),
        (None, f"iconv -f {encoding} -t UTF-8"),
    ):
        with pytest.raises(CaptionGANError, match=rf"^[^\n]*captions\.txt[^\n]*{advice}[^\n]*$"):
            text_files.read_text(path, "captions", setting)


@pytest.mark.parametrize(
    ("content", "setting", "words"),
    [
        (b"a dog\na caf\xe9 by\n", "utf-8", r"line 2: 'a caf\\xe9 by' .* 'a café by'"),
        ("é é é\na caf\ufffd".encode().replace(b"\xef\xbf\xbd", b"\xe9"), "utf-8", "damaged text"),
        ("é é é\na caf\ufffd".encode().replace(b"\xef\xbf\xbd", b"\xe9"), "cp1252", "damaged text"),
        (b"\xff\xfea\0\0\xd8b\0", "utf-8", "damaged text in utf-16-le"),
        (b"a \x81 b", "cp1252", "damaged text in cp1252"),
        (TEXT.encode("utf-16-le"), "cp1252", "zero bytes .* utf-16-le"),
        (TEXT.encode("utf-16-be"), "utf-16", "zero bytes .* utf-16-be"),
    ],
)
def test_an_error_shows_the_line(tmp_path, content, setting, words):
    path = write(tmp_path, content)
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*captions\.txt[^\n]*{words}[^\n]*$"):
        list(text_files.read_lines(path, "captions", setting))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"\n <!DOCTYPE html>\n<html>", "web page"),
        (b"PK\x03\x04abc", "ZIP archive or an Excel workbook"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PAR1\x15\0", "Parquet"),
    ],
)
def test_files_that_are_no_text_are_named(tmp_path, content, words):
    assert other_content(content) and not other_content(b"a <html> page")
    with pytest.raises(CaptionGANError, match=rf"captions\.txt is .*{words}"):
        text_files.read_text(write(tmp_path, content), "captions")


def test_conflict_markers_are_named(tmp_path):
    content = b"a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> other\n"
    for reader in (text_files.read_text, lambda *args: list(text_files.read_lines(*args))):
        with pytest.raises(CaptionGANError, match=r"line 2: '<<<<<<< HEAD' is a conflict marker"):
            reader(write(tmp_path, content), "captions")


def test_a_missing_file_is_named(tmp_path):
    for reader in (text_files.read_text, lambda *args: list(text_files.read_lines(*args))):
        with pytest.raises(CaptionGANError, match=r"none\.txt is missing; expected captions"):
            reader(str(tmp_path / "none.txt"), "captions")
