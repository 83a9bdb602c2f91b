"""Numbers on pages."""

import math

import pytest

from caption_gan.reporting.pages import format_number

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, DASH),
        (math.nan, DASH),
        (1234, "1,234"),
        (1234.5, "1,234"),
        (80.0, "80"),
        (12.25, "12.250"),
        (0.5, "0.500"),
        (-0.25, f"{MINUS}0.250"),
        (0.0004, "0.0004"),
        (0.0, "0.000"),
        (2.6e-14, "0.000"),
    ],
)
def test_format_number(value: float | None, expected: str) -> None:
    assert format_number(value) == expected
