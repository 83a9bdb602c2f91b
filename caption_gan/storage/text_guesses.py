"""Guesses what a file is that cannot be read as text."""

import re

# First bytes of files that people mistake for text, what they are, and what to do.
_OTHER_CONTENT = {
    b"version https://git-lfs.github.com/spec/": (
        "a pointer of Git LFS instead of the file itself; run `git lfs pull` in its folder"
    ),
    b"PK\x03\x04": "a ZIP archive or an Excel workbook; unpack it, or save the table as CSV",
    b"\x1f\x8b": "compressed with gzip; unpack it",
    b"PAR1": "a Parquet file; set data.source to hugging_face",
    b"%PDF": "a PDF file; save its text as UTF-8",
    b"\x89PNG": "a PNG image instead of text",
    b"\xff\xd8\xff": "a JPEG image instead of text",
}
_PAGE = re.compile(rb"\s*<(!doctype\s+html|html)\b", re.IGNORECASE)
_KANA, _HANGUL = re.compile("[\u3040-\u30ff]"), re.compile("[\uac00-\ud7a3]")
_HIGH = re.compile(rb"[\x80-\xff]+")


def other_content(head: bytes) -> str | None:
    """Names what a file is instead of text, and what to do, by its first bytes; None for text."""
    if _PAGE.match(head):
        return "a web page (HTML), perhaps of a download that failed; download the file again"
    return next((is_ for magic, is_ in _OTHER_CONTENT.items() if head.startswith(magic)), None)


def wide_encoding(content: bytes) -> str | None:
    """Returns UTF-16 or UTF-32 if zero bytes suggest it, without a byte-order mark too."""
    # ASCII letters leave zeros at the same one to three of every four bytes.
    zeros = "".join(str(int(content[place::4].count(0) * 20 > len(content))) for place in range(4))
    patterns = {"0111": "utf-32-le", "1110": "utf-32-be", "0101": "utf-16-le", "1010": "utf-16-be"}
    return patterns.get(zeros)


def likely_encoding(content: bytes) -> str:
    """The likely encoding of text that is not UTF-8, judged by its lines that are not ASCII.

    Not left to `charset-normalizer`: version 3.5 takes a few French captions for cp1250, and
    Russian ones in KOI8-R for Japanese.
    """
    if wide := wide_encoding(content):
        return wide
    lines = [line for line in content.split(b"\n") if not line.isascii()]
    sample = b"\n".join(lines[1:-1] or lines)  # The first and the last may be cut.
    runs = _HIGH.findall(sample)
    high = b"".join(runs)
    if 2 * len(high) < sum(chr(byte).isalpha() for byte in sample if byte < 128):
        return "cp1252"  # A few accents among letters of ASCII.
    if sum(byte >= 0xE0 for byte in high) > 0.7 * len(high):
        return "cp1251"  # Lower-case Cyrillic.
    if sum(0xC0 <= byte < 0xE0 for byte in high) > 0.7 * len(high):
        return "koi8-r"
    # In this order, text in one encoding is seldom valid in an earlier one.
    for encoding, is_valid in (
        ("cp932", lambda text: len(_KANA.findall(text)) > 0.2 * len(text)),
        ("euc-jp", lambda text: len(_KANA.findall(text)) > 0.2 * len(text)),
        ("cp949", lambda text: len(_HANGUL.findall(text)) > 0.8 * len(text)),
        ("gb2312", bool),
        ("big5", bool),
        ("gb18030", bool),
    ):
        try:
            text = "".join(filter(str.isalpha, sample.decode(encoding)))
        except UnicodeDecodeError:
            continue
        if is_valid(re.sub("[ -~]", "", text)):
            return encoding.replace("gb2312", "gb18030")  # The latter has more characters.
    return "cp1252"
