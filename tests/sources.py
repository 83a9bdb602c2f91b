"""How tests read sources."""


def named_examples(source, split: str) -> list[tuple[str, tuple[str, ...]]]:
    """Names and captions of a split whose images are their names; layouts decode nothing."""
    found = list(source.examples(split, range(source.images_of_split[split])))
    assert all(example.image == example.image_id.encode() for example in found)
    return [(example.image_id, example.captions) for example in found]
