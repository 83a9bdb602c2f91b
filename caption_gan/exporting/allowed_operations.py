"""Which operations of a SavedModel the serving engine lacks.

With one it may load and fail its first request: functions are built when they are first called
(https://github.com/tensorflow/serving/issues/2267).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from caption_gan.errors import CaptionGANError

OLDEST, NEWEST = 13, 20  # Releases 2.N of the engine whose tensorflow-text is known.
MUST_COMPILE = "_XlaMustCompile"  # Attribute that `tf.function(jit_compile=True)` leaves.

# Engines up to 2.19 link tensorflow-text 2.12 (https://github.com/tensorflow/serving/pull/4057),
# 2.20 links 2.20 (`tensorflow_serving/workspace.bzl`).
NEW_IN_2_20 = "TFText>RoundRobinGenerateMasks TFText>RoundRobinTrim TFText>Utf8Binarize"
TEXT_OPERATIONS = set(
    f"""CaseFoldUTF8 ConstrainedSequence FastBertNormalize FastWordpieceTokenizeWithOffsets
    FindSourceOffsets MaxSpanningTree NormalizeUTF8 NormalizeUTF8WithOffsetsMap PhraseTokenize
    RegexSplitWithOffsets RougeL SentenceFragments SentenceFragmentsV2 SentencepieceDetokenizeOp
    SentencepieceIdToStringOp SentencepieceOp SentencepieceStringToIdOp SentencepieceTokenizeOp
    SentencepieceTokenizeWithOffsetsOp SentencepieceVocabSizeOp SplitMergeTokenizeWithOffsets
    TFText>BoiseTagsToOffsets TFText>ByteSplitByOffsets TFText>ByteSplitWithOffsets
    TFText>FastSentencepieceDetokenize TFText>FastSentencepieceTokenize TokenizerFromLogits
    TFText>FastWordpieceDetokenize TFText>NgramsStringJoin TFText>OffsetsToBoiseTags
    TFText>PhraseDetokenize TFText>WhitespaceTokenizeWithOffsetsV2 UnicodeScriptTokenizeWithOffsets
    WhitespaceTokenizeWithOffsets WordpieceTokenizeWithOffsets {NEW_IN_2_20}""".split()
)

_Place = tuple[list[str], list[str]]  # The operations that stand there, the places it leads to.


def check_operations(saved_model: Path, engine: str = f"2.{NEWEST}") -> None:
    """Refuses a model with operations that `tensorflow_model_server` lacks.

    Allowed are TensorFlow's own but those that need Python, a TPU or XLA's compiler, which the
    engine lacks (https://github.com/tensorflow/serving/issues/2214), and what it links of
    tensorflow-text. TensorFlow's own are those of `tf.raw_ops`: no library loaded later adds to
    them. What TensorFlow gained since the engine's release passes: only that engine can tell.

    Functions that no signature reaches count as well: the engine's optimizers import all of them.
    The model's own `stripped_op_list` will not do: it lacks what stands in functions that are
    attributes of a node, as those of calls, loops and datasets are.

    Args:
        saved_model: Folder of the model.
        engine: Release of TensorFlow Serving, `2.N`.

    Raises:
        CaptionGANError: Operations are forbidden (each is named, with a function where it stands
            and the way there), or the release is unknown, or `saved_model.pb` unreadable.
    """
    release = re.fullmatch(r"2\.(\d+)", engine)
    if not release or not OLDEST <= int(release[1]) <= NEWEST:
        known = f"expected 2.{OLDEST} to 2.{NEWEST}"
        raise CaptionGANError(f"release of TensorFlow Serving: {known}, got {engine!r}")
    found: dict[str, str] = {}
    for meta_graph in _meta_graphs(saved_model):
        places = _places(meta_graph)
        for name, route in _routes(places).items():
            for operation in places[name][0]:
                fault = _fault(operation, int(release[1]))
                # A node whose operation is a function's name calls that function.
                if fault and f"function {operation}" not in places:
                    found.setdefault(operation, f"{operation} ({fault}) in {_where(route)}")
    if found:
        raise CaptionGANError(
            f"{saved_model}: TensorFlow Serving {engine} cannot run {'; '.join(found.values())}. "
            "Use TensorFlow's own operations, without Python functions and jit_compile."
        )


def _fault(operation: str, release: int) -> str | None:
    if "PyFunc" in operation:  # Or EagerPyFunc, or PyFuncStateless.
        return "needs Python"
    if "Xla" in operation or "TPU" in operation:
        return "needs XLA's compiler or a TPU"
    if operation in NEW_IN_2_20.split() and release < 20:
        return "of tensorflow-text, linked from 2.20 on"
    known = operation in TEXT_OPERATIONS or hasattr(tf.raw_ops, operation)
    return None if known else "not an operation of TensorFlow's own"


def _where(route: tuple[str, ...]) -> str:
    way = " > ".join(name for name in route[:-1] if not name.startswith("node "))
    return f"{route[-1]}, {f'reached from {way}' if way else 'which no signature reaches'}"


def _meta_graphs(saved_model: Path) -> Any:
    path = saved_model / "saved_model.pb"
    try:
        meta_graphs = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
    except (OSError, DecodeError) as error:
        raise CaptionGANError(f"{path} cannot be read as a SavedModel: {error}") from error
    if meta_graphs:
        return meta_graphs
    raise CaptionGANError(f"{path}: expected a SavedModel with a graph, got one without")


def _places(meta_graph: Any) -> dict[str, _Place]:
    """Signatures, nodes of the main graph and functions; routes start from the first ones."""
    places: dict[str, _Place] = {}
    for name, signature in sorted(meta_graph.signature_def.items()):
        places[f"signature {name}"] = [], [_node(out.name) for out in signature.outputs.values()]
    for node in meta_graph.graph_def.node:
        operations, calls = _place([node], node.attr)
        places[f"node {node.name}"] = operations, [*map(_node, node.input), *calls]
    for function in meta_graph.graph_def.library.function:
        places[f"function {function.signature.name}"] = _place(function.node_def, function.attr)
    return places


def _place(nodes: Iterable[Any], attributes: Mapping[str, Any]) -> _Place:
    compiled = MUST_COMPILE in attributes and attributes[MUST_COMPILE].b
    operations = [MUST_COMPILE] * compiled + [node.op for node in nodes]
    calls = [f"function {name}" for node in nodes for name in (node.op, *_called(node.attr))]
    return operations, calls


def _called(attributes: Mapping[str, Any]) -> Iterator[str]:
    for value in attributes.values():
        for function in (value.func, *value.list.func):
            if function.name:  # An attribute of another type has a function without a name.
                yield function.name
                yield from _called(function.attr)


def _routes(places: Mapping[str, _Place]) -> dict[str, tuple[str, ...]]:
    """The shortest way to each place from the first one, in order, that leads there."""
    routes: dict[str, tuple[str, ...]] = {}
    for start in places:
        queue: list[tuple[str, tuple[str, ...]]] = [(start, ())]
        for name, way in queue:  # It grows meanwhile.
            if name in places and name not in routes:
                routes[name] = (*way, name)
                queue.extend((following, routes[name]) for following in places[name][1])
    return routes


def _node(tensor: str) -> str:
    return "node " + tensor.removeprefix("^").partition(":")[0]
