"""Finds operations of a SavedModel that TensorFlow Serving does not have.

A model with such an operation may load and then fail at its first request, because functions are
built when they are first called (https://github.com/tensorflow/serving/issues/2267).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from caption_gan.errors import CaptionGANError

# Releases 2.N of TensorFlow Serving for which the version of tensorflow-text is known.
OLDEST_ENGINE, NEWEST_ENGINE = 13, 20
MUST_COMPILE = "_XlaMustCompile"  # The attribute that `tf.function(jit_compile=True)` sets.

# Releases up to 2.19 link tensorflow-text 2.12 (https://github.com/tensorflow/serving/pull/4057),
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

# A signature, a node of the main graph or a function: its operations, and the names of those of
# the same kinds that it leads to.
_Vertex = tuple[list[str], list[str]]


def release_number(engine: str) -> int:
    """Returns N of a release 2.N of TensorFlow Serving.

    Raises:
        CaptionGANError: Its operations are not known here.
    """
    release = re.fullmatch(r"2\.(\d+)", engine)
    if not release or not OLDEST_ENGINE <= int(release[1]) <= NEWEST_ENGINE:
        raise CaptionGANError(
            "Release of TensorFlow Serving (--engine): expected "
            f"2.{OLDEST_ENGINE} to 2.{NEWEST_ENGINE}, got {engine!r}"
        )
    return int(release[1])


def check_operations(saved_model: Path, engine: str = f"2.{NEWEST_ENGINE}") -> None:
    """Raises an error if a model has operations that `tensorflow_model_server` does not have.

    Allowed are TensorFlow's own operations (those of `tf.raw_ops`, to which no library loaded later
    adds) and those of the tensorflow-text that the server links. Not allowed are operations that
    need Python, a TPU or the XLA compiler, which the server lacks
    (https://github.com/tensorflow/serving/issues/2214). An operation that TensorFlow gained after
    the server's release is not noticed: only that server can tell.

    Functions that no signature reaches count too, because the server's graph optimizers import all
    functions. The model's `stripped_op_list` is not used: it omits the bodies of functions that are
    attributes of nodes, such as calls, loops and dataset transformations.

    Args:
        saved_model: Folder of the SavedModel.
        engine: Release of TensorFlow Serving, `2.N`.

    Raises:
        CaptionGANError: Operations are not allowed (the message names each with one function that
            contains it and the path to it), the release is unknown, or `saved_model.pb` is
            unreadable.
    """
    release = release_number(engine)
    problems: dict[str, str] = {}
    for meta_graph in _meta_graphs(saved_model):
        graph = _call_graph(meta_graph)
        for name, path in _shortest_paths(graph).items():
            for operation in graph[name][0]:
                reason = _why_not_allowed(operation, release)
                # A node whose operation is the name of a function calls that function.
                if reason and f"function {operation}" not in graph:
                    problems.setdefault(operation, f"{operation} ({reason}) in {_describe(path)}")
    if problems:
        raise CaptionGANError(
            f"{saved_model}: TensorFlow Serving {engine} cannot run {'; '.join(problems.values())}."
            " Use TensorFlow's own operations, without Python functions and without jit_compile."
        )


def _why_not_allowed(operation: str, release: int) -> str | None:
    if "PyFunc" in operation:  # Also EagerPyFunc and PyFuncStateless.
        return "needs Python"
    if "Xla" in operation or "TPU" in operation:
        return "needs the XLA compiler or a TPU"
    if operation in NEW_IN_2_20.split() and release < 20:
        return "an operation of tensorflow-text, available from 2.20 on"
    available = operation in TEXT_OPERATIONS or hasattr(tf.raw_ops, operation)
    return None if available else "not one of TensorFlow's own operations"


def _describe(path: tuple[str, ...]) -> str:
    callers = " > ".join(name for name in path[:-1] if not name.startswith("node "))
    return f"{path[-1]}, {f'called from {callers}' if callers else 'which no signature calls'}"


def _meta_graphs(saved_model: Path) -> Any:
    path = saved_model / "saved_model.pb"
    try:
        meta_graphs = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
    except (OSError, DecodeError) as error:
        raise CaptionGANError(f"{path} cannot be read as a SavedModel: {error}") from error
    if meta_graphs:
        return meta_graphs
    raise CaptionGANError(f"{path}: expected a SavedModel with a graph, got one without a graph")


def _call_graph(meta_graph: Any) -> dict[str, _Vertex]:
    """Vertices by name: first signatures, then nodes of the main graph, then functions."""
    graph: dict[str, _Vertex] = {}
    for name, signature in sorted(meta_graph.signature_def.items()):
        outputs = [_node_name(output.name) for output in signature.outputs.values()]
        graph[f"signature {name}"] = [], outputs
    for node in meta_graph.graph_def.node:
        operations, calls = _vertex([node], node.attr)
        graph[f"node {node.name}"] = operations, [*map(_node_name, node.input), *calls]
    for function in meta_graph.graph_def.library.function:
        graph[f"function {function.signature.name}"] = _vertex(function.node_def, function.attr)
    return graph


def _vertex(nodes: Iterable[Any], attributes: Mapping[str, Any]) -> _Vertex:
    compiled = MUST_COMPILE in attributes and attributes[MUST_COMPILE].b
    operations = [MUST_COMPILE] * compiled + [node.op for node in nodes]
    calls = [f"function {name}" for node in nodes for name in (node.op, *_functions(node.attr))]
    return operations, calls


def _functions(attributes: Mapping[str, Any]) -> Iterator[str]:
    """Names of the functions in a node's attributes."""
    for value in attributes.values():
        for function in (value.func, *value.list.func):
            if function.name:  # Empty if the attribute is of another type.
                yield function.name
                yield from _functions(function.attr)


def _shortest_paths(graph: Mapping[str, _Vertex]) -> dict[str, tuple[str, ...]]:
    """The shortest path to each vertex, from the first vertex that leads to it."""
    paths: dict[str, tuple[str, ...]] = {}
    for start in graph:
        queue: list[tuple[str, tuple[str, ...]]] = [(start, ())]
        for name, path in queue:  # Breadth first: the loop appends to the queue.
            if name in graph and name not in paths:
                paths[name] = (*path, name)
                queue.extend((successor, paths[name]) for successor in graph[name][1])
    return paths


def _node_name(tensor: str) -> str:
    return "node " + tensor.removeprefix("^").partition(":")[0]
