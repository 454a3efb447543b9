"""Files of re-ranking transformers: asmk-engine's own, and the published checkpoints of the RRT code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from asmk_engine.errors import FormatError, InputError
from asmk_engine.networks.backbones import load_tensors, plain_tensors
from asmk_engine.networks.checkpoints import open_network, write_network
from asmk_engine.networks.official_global import read_content
from asmk_engine.networks.reranking.transformer import RerankingTransformer
from asmk_engine.networks.reranking.transformer_options import TransformerOptions
from asmk_engine.networks.tensor_files import SUFFIX, Tensors, kind_of_network

KIND = "asmk-engine re-ranking transformer"
_CURE = "give a checkpoint of the RRT code, such as r50_gldv2.pt"
_EMBEDDING, _HIDDEN = "remap.weight", "encoder.layers.0.linear1.weight"


def save_transformer(path: Path | str, network: RerankingTransformer, origin: dict[str, Any]) -> str:
    """Write a network atomically, replacing an existing file; return the sha256 of the file.

    origin  where the weights came from, as JSON values, for people
    """
    return write_network(path, KIND, network, network.options.to_json(), origin)


def open_transformer(path: Path | str) -> tuple[RerankingTransformer, dict[str, Any]]:
    """Return the network of an asmk-engine file or a published checkpoint, in evaluation mode, and its origin.

    Raises NotFoundError, FormatError for another kind of file, DamagedError if it was altered, and MismatchError,
    which names every tensor that is missing, surplus or of another shape.
    """
    path = Path(path)
    if path.suffix == SUFFIX:
        if path.is_file() and kind_of_network(path) not in (KIND, None):
            raise FormatError(
                f"{path}: not a re-ranking transformer of asmk-engine; make one with `asmk-engine train-rrt`"
            )
        return open_network(path, KIND, "not a re-ranking transformer of asmk-engine", _made)
    tensors = _published_tensors(read_content(path), path)
    network = RerankingTransformer(_options_of(tensors))
    load_tensors(network, tensors, path, _CURE)
    return network.eval(), {"file": path.name, "format": "RRT"}


def _made(text: str, path: Path) -> RerankingTransformer:
    return RerankingTransformer(TransformerOptions.from_json(text, path))


def _published_tensors(content: Any, path: Path) -> Tensors:
    """Return the tensors of a checkpoint, whose key is `state`, without the prefix of parallel training."""
    state = content.get("state", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not any("scale_encoder" in str(key) for key in state):
        raise FormatError(f"{path}: not a checkpoint of the RRT code; {_CURE}")
    plain = {str(key).removeprefix("module."): value for key, value in state.items()}
    return plain_tensors(plain, path)


def _options_of(tensors: Mapping[str, torch.Tensor]) -> TransformerOptions:
    """Return the sizes that the tensors have; those of the paper where a tensor is missing or of no use.

    The number of heads is in no tensor: it is 4, as in the paper. What does not fit these sizes is named on loading.
    """
    paper = TransformerOptions()
    layers = {parts[2] for parts in (name.split(".") for name in tensors) if parts[:2] == ["encoder", "layers"]}
    embedding, hidden = tensors.get(_EMBEDDING), tensors.get(_HIDDEN)
    dim, global_dim = (
        embedding.shape if embedding is not None and embedding.ndim == 2 else (paper.dim, paper.global_dim)
    )
    inner = hidden.shape[0] if hidden is not None and hidden.ndim == 2 else paper.hidden
    try:
        return TransformerOptions(global_dim, dim, len(layers), paper.heads, inner)
    except InputError:
        return paper
