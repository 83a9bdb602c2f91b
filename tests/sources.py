"""Reads sources for tests."""


def named_examples(source, split: str) -> list[tuple[str, tuple[str, ...]]]:
    """Ids and captions of a split; each image must consist of its id, as sources do not decode."""
    found = list(source.examples(split, range(source.images_of_split[split])))
    assert all(example.image == example.image_id.encode() for example in found)
    return [(example.image_id, example.captions) for example in found]
