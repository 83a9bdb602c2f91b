"""Settings of data sets that are refused by themselves."""

import pytest

import caption_gan
from caption_gan.errors import UsageError


@pytest.mark.parametrize("name", ["cp12522", "base64", ""])
def test_an_unknown_encoding_is_refused_at_once(name):
    with pytest.raises(UsageError, match=r"data\.encoding: expected a text encoding .* cp1252"):
        caption_gan.fit(data={"encoding": name})
