"""Names of the served signatures and tensors. Clients import them without TensorFlow.

B batch, K captions per image, T time, R regions.
"""

DEFAULT = "serving_default"  # image_bytes [B] -> caption [B], score [B], error [B]
SAMPLE = "sample"  # also temperature, top_p, seed [B] -> captions [B, K], scores [B, K], error [B]
BEAM = "beam"  # image_bytes [B] -> captions [B, K], scores [B, K], best first, error [B]
ATTENTION = "attention"  # -> caption [B], tokens [B, T], attention [B, T, R], error [B]
EXAMPLES = "examples"  # serialized tf.train.Example [B] -> as serving_default
ALL = (DEFAULT, SAMPLE, BEAM, ATTENTION, EXAMPLES)

IMAGE_BYTES = "image_bytes"
TEMPERATURE = "temperature"
TOP_P = "top_p"
SEED = "seed"
SERIALIZED = "examples"
ENCODED = "image/encoded"  # Feature of an example.

CAPTION, SCORE = "caption", "score"
CAPTIONS, SCORES = "captions", "scores"
TOKENS, WEIGHTS = "tokens", "attention"
ERROR = "error"  # Empty for a valid image.
