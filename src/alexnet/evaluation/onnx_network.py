"""A network in an ONNX file that `alexnet export` wrote, computed by onnxruntime: it answers, and cannot be looked into."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.runs import read_file
from alexnet.models.described import MARK, described
from alexnet.models.folder import ModelFolder

if TYPE_CHECKING:
    import onnxruntime
    from onnx import GraphProto, ModelProto, TensorProto

SUFFIX = ".onnx"
INPUT, PIXELS, LOGITS = "input", "pixels", "logits"
"""What a graph reads, the network's input or with its preprocessing pixels, and the scores that it gives."""
MAX_ONNX_BYTES = (1 << 31) - 1
"""Limit of an ONNX file: as much as one can have."""
MAX_MEMORY_BYTES = 4 << 30
"""What onnxruntime may take for weights and maps of all files together."""


def is_onnx(path: Path) -> bool:
    """Whether a path names an ONNX file. They have no signature; the name decides."""
    return path.suffix.lower() == SUFFIX and path.is_file()


def require_onnx() -> None:
    """:class:`UsageError` that says how to install what reads and computes ONNX files, where it is absent."""
    if any(find_spec(package) is None for package in ("onnx", "onnxruntime")):
        raise UsageError('ONNX files need onnx and onnxruntime: pip install "alexnet[onnx]"')


class OnnxNetwork(nn.Module):
    """Logits (B, K) of a batch, as a network of this package gives them, by onnxruntime on the CPU in float32.

    Whoever asks for more than answers, for layers, weights or gradients, gets a :class:`UsageError` that says where they are."""

    def __init__(
        self, path: Path, sha256: str, session: onnxruntime.InferenceSession, num_classes: int, pixels: bool
    ) -> None:
        super().__init__()
        self._path, self._session, self._num_classes, self._pixels = path, session, num_classes, pixels
        self._sha256 = sha256

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return self._sha256

    @property
    def runtime(self) -> str:
        """What computes it."""
        return f"onnxruntime {version('onnxruntime')}"

    @property
    def takes_pixels(self) -> bool:
        """Whether the preprocessing is in the graph."""
        return self._pixels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = x_BCHW.detach().cpu()
        x = x_BCHW.permute(0, 2, 3, 1).to(torch.uint8) if self._pixels else x_BCHW.float()
        try:
            (logits_BK,) = self._session.run([LOGITS], {PIXELS if self._pixels else INPUT: x.contiguous().numpy()})
        except Exception as error:
            raise AlexNetError(f"{printable(self._path)}: onnxruntime cannot compute it ({_said(error)})") from error
        if getattr(logits_BK, "shape", None) != (len(x), self._num_classes) or logits_BK.dtype.name != "float32":
            raise AlexNetError(
                f"{printable(self._path)}: its answer is not {self._num_classes} numbers of float32 for each image; export it "
                "again"
            )
        return torch.from_numpy(logits_BK)

    def named_modules(self, *_arguments: Any, **_fields: Any) -> NoReturn:
        self._refuse()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattr__(name)
        return self._refuse()

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(
            f"{printable(self._path)} is an ONNX file, which only answers (predict, evaluate); for its layers, "
            "name the run or the model folder that it was exported from"
        )


def open_onnx(path: Path) -> tuple[OnnxNetwork, ModelFolder]:
    """The network in an ONNX file, and what belongs to it, whose own network has no weights. Nothing outside the file is read.

    Raises :class:`UsageError` without the packages, :class:`AlexNetError` of one line for a file that is damaged, too large, not
    exported by this package, keeps weights in other files, or has loops."""
    require_onnx()
    import onnx

    where = printable(path)
    content = read_file(path, MAX_ONNX_BYTES)
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # of protobuf, of several kinds
        raise AlexNetError(f"{where}: damaged, or not an ONNX file ({_said(error)}); export it again") from error
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if MARK not in entries and not model.graph.node:
        raise AlexNetError(f"{where}: damaged, or not an ONNX file; export it again")
    found = described(entries, path)
    _require_closed(model, where)
    pixels = entries.get("reads") == PIXELS
    try:
        onnx.checker.check_model(model, full_check=True)
        session = _session(content)
    except Exception as error:  # of both packages, which have no kind in common
        raise AlexNetError(f"{where}: no sound ONNX file ({_said(error)}); export it again") from error
    given, wanted = [one.name for one in session.get_inputs()], PIXELS if pixels else INPUT
    if given != [wanted] or LOGITS not in [one.name for one in session.get_outputs()]:
        raise AlexNetError(f"{where}: must read `{wanted}` and give `{LOGITS}`, as an export does; export it again")
    sha256 = hashlib.sha256(content).hexdigest()
    return OnnxNetwork(path, sha256, session, len(found.classes), pixels), found


def _require_closed(model: ModelProto, where: str) -> None:
    """Refuse what would read other files, run without end, or call what is no operator of ONNX."""
    from onnx import TensorProto

    for tensor in _tensors(model.graph):
        if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
            raise AlexNetError(
                f"{where}: keeps weights in another file, and only single files are read; save it again without external data"
            )
    if model.functions or any(_graphs(node.attribute) for node in model.graph.node):
        raise AlexNetError(f"{where}: has loops or functions, which no exported network has; export it again")
    if strange := next(
        (node.domain for node in model.graph.node if node.domain not in ("", "ai.onnx", "ai.onnx.ml")), None
    ):
        raise AlexNetError(
            f"{where}: needs operators of {printable(strange)[:60]}, which are not ONNX's own; export it again"
        )


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            yield attribute.sparse_tensor.values
            yield attribute.sparse_tensor.indices


def _graphs(attributes: Any) -> bool:
    return any(one.HasField("g") or one.graphs for one in attributes)


def _session(content: bytes) -> onnxruntime.InferenceSession:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # what is wrong is said once, by us
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.use_env_allocators", "1")
    _limit_memory()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _limit_memory() -> None:
    """Once for the process: a second allocator is refused, and the first one stays."""
    import onnxruntime as ort

    kind = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    with contextlib.suppress(RuntimeError):
        ort.create_and_register_allocator(
            kind, ort.OrtArenaCfg({"max_mem": MAX_MEMORY_BYTES, "arena_extend_strategy": 1})
        )


def _said(error: Exception) -> str:
    return printable(str(error).strip().partition("\n")[0])[:150]
