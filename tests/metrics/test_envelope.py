"""The envelope of quality-diversity curves, by hand."""

import numpy as np
import pytest

from caption_gan.metrics.envelope import captioner_curves, envelope, interpolate


def curve(axis: str, *points: tuple[float, float, float]) -> list[dict[str, float]]:
    return [{axis: at, "mBLEU-4": variety, "CIDEr": cider} for at, variety, cider in points]


# From 0.2 to 0.6 the first rises from 0.1 to 0.5; from 0.4 to 0.8 the second is flat at 0.4.
COOL = curve("temperature", (0.5, 0.6, 0.5), (1.0, 0.2, 0.1))
NUCLEUS = curve("top_p", (0.5, 0.8, 0.4), (0.9, 0.4, 0.4))


def test_values_between_measured_points():
    assert interpolate(COOL, "CIDEr", 0.3) == pytest.approx(0.2)
    np.testing.assert_allclose(
        interpolate(COOL, "CIDEr", np.array([0.1, 0.2, 0.6, 0.7])), [np.nan, 0.1, 0.5, np.nan]
    )
    assert interpolate(COOL, "mBLEU-4", 0.3, along="CIDEr") == pytest.approx(0.4)


def test_the_envelope_is_the_better_curve_and_ends_with_the_last():
    at = np.array([0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    expected = [np.nan, 0.2, 0.4, 0.4, 0.5, 0.4, 0.4, np.nan]
    np.testing.assert_allclose(envelope([COOL, NUCLEUS], "CIDEr", at), expected)
    np.testing.assert_allclose(envelope([NUCLEUS, COOL], "CIDEr", at), expected)
    np.testing.assert_allclose(envelope([COOL], "CIDEr", at), interpolate(COOL, "CIDEr", at))


def test_temperatures_above_one_without_more_variety_are_ignored():
    points = curve("temperature", (0.5, 0.6, 0.8), (1.0, 0.4, 0.6), (1.2, 0.5, 0.0))
    assert interpolate(points, "CIDEr", 0.5) == pytest.approx(0.7)
    more_varied = curve("temperature", (1.0, 0.4, 0.6), (1.2, 0.3, 0.4))
    assert interpolate(more_varied, "CIDEr", 0.35) == pytest.approx(0.5)


def test_curves_belong_to_their_captioner():
    choice = [{"drawn": 5, "mBLEU-4": 0.5, "CIDEr": 0.5}]
    named = {"b": COOL, "b, top-p": NUCLEUS, "a": COOL, "critic's choice": choice}
    assert captioner_curves(named) == {"b": [COOL, NUCLEUS], "a": [COOL]}
