"""The steps of the method, configured by parameters: train a codebook, build an inverted file, query it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.compat import io_helpers
from asmk_engine.compat.checks import check_descriptors, check_image_ids
from asmk_engine.compat.codebook import Codebook, warn_about_size
from asmk_engine.compat.index import initialize_index
from asmk_engine.compat.inverted_file import IVF
from asmk_engine.compat.kernel import ASMKKernel
from asmk_engine.compat.parameters import Parameters, section, step_parameters
from asmk_engine.compat.states import read_state, write_state
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.images.listing import PathLike


class ASMKMethod:
    """The method after some of its steps; each step returns a new object and does not change the old one.

    params    the parameter tree (see `parameters`), not copied
    metadata  of each completed step: times in seconds, and statistics of the inverted file
    """

    def __init__(
        self,
        params: Parameters,
        metadata: dict[str, Any],
        *,
        codebook: Codebook | None = None,
        kernel: ASMKKernel | None = None,
        inverted_file: IVF | None = None,
    ) -> None:
        self.params = params
        self.metadata = metadata
        self.codebook = codebook
        self.kernel = kernel
        self.inverted_file = inverted_file

    @classmethod
    def initialize_untrained(cls, params: Parameters) -> ASMKMethod:
        """Return the method before its first step; raises InputError if the parameters are not a dictionary."""
        if not isinstance(params, Mapping):
            raise InputError(f"params is a {type(params).__name__}; expected the dictionary of parameters")
        return cls(params, {})

    def train_codebook(
        self,
        des: np.ndarray | None,
        *,
        cache_path: PathLike | None = None,
        step_params: Mapping[str, Any] | None = None,
    ) -> ASMKMethod:
        """Cluster descriptors [n, D], or read the codebook at `cache_path` if the file exists.

        A trained codebook is written to `cache_path`, as HDF5 whatever the suffix.

        step_params  override the parameters of this step
        """
        step = step_parameters(self.params, "train_codebook", step_params)
        factory = initialize_index(**section(self.params, "index", ("gpu_id", "assignment")))
        codebook = Codebook(factory, **{"size": "64k", **section(step, "codebook", ("size",))})
        metadata: dict[str, Any] = {"index_class": type(factory).__name__}
        watch = _Watch()
        if cache_path is not None and Path(cache_path).exists():
            wanted = codebook.size
            codebook = Codebook.initialize_from_state(read_state(Path(cache_path)), factory, where=cache_path)
            warn_about_size(codebook, wanted, cache_path)
            codebook.index()
            metadata["load_time"] = watch.total()
        else:
            codebook.train(_given(des, "descriptors", cache_path))
            metadata["cluster_time"] = watch.lap()
            codebook.index()
            metadata["index_time"] = watch.lap()
            metadata["train_time"] = watch.total()
            if cache_path is not None:
                codebook.save(cache_path)
        return ASMKMethod(self.params, {**self.metadata, "train_codebook": metadata}, codebook=codebook)

    def build_ivf(
        self,
        vecs: np.ndarray | None,
        imids: np.ndarray | None,
        *,
        distractors_path: PathLike | None = None,
        cache_path: PathLike | None = None,
        step_params: Mapping[str, Any] | None = None,
    ) -> ASMKMethod:
        """Index descriptors [n, D] of the images `imids` [n], or read the inverted file at `cache_path` if it exists.

        distractors_path  a stored inverted file whose images are also ranked, with negative ids
        """
        builder = self.create_ivf_builder(cache_path=cache_path, step_params=step_params)
        if not builder.loaded_from_cache:
            if distractors_path is not None:
                builder.initialize_with_distractors(distractors_path)
            builder.add(_given(vecs, "descriptors", cache_path), _given(imids, "image ids", cache_path))
        return self.add_ivf_builder(builder)

    def create_ivf_builder(
        self, *, cache_path: PathLike | None = None, step_params: Mapping[str, Any] | None = None
    ) -> IvfBuilder:
        """Return a builder of an inverted file, which is read from `cache_path` if the file exists."""
        if self.codebook is None:
            raise InputError("the method has no codebook; call train_codebook first")
        step = step_parameters(self.params, "build_ivf", step_params)
        kernel = ASMKKernel(self.codebook, **section(step, "kernel", ("binary",)))
        return IvfBuilder(step, self.codebook, kernel, cache_path=cache_path)

    def add_ivf_builder(self, builder: IvfBuilder) -> ASMKMethod:
        """Return the method with the builder's inverted file, which is written to its `cache_path` if it changed.

        Images added to the builder afterwards are also found by the returned method.
        """
        builder.save()
        metadata = {**builder.metadata, "ivf_stats": builder.ivf.stats}
        return ASMKMethod(
            self.params,
            {**self.metadata, "build_ivf": metadata},
            codebook=builder.codebook,
            kernel=builder.kernel,
            inverted_file=builder.ivf,
        )

    def query_ivf(
        self,
        qvecs: np.ndarray,
        qimids: np.ndarray,
        *,
        step_params: Mapping[str, Any] | None = None,
        progress: int | None = None,
    ) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray]:
        """Rank the images for each query image, given by descriptors `qvecs` [n, D] with the ids `qimids` [n].

        returns  metadata with `query_avg_time` in seconds, the query ids [Q], ranks [Q, r] int64 and scores [Q, r]
                 float64, highest first; r is `topk`, or the number of all images, including those with score 0
        """
        if self.codebook is None or self.kernel is None or self.inverted_file is None:
            raise InputError("the method has no inverted file; call build_ivf first")
        watch = _Watch()
        ids, ranks, scores = self.accumulate_scores(
            self.codebook,
            self.kernel,
            self.inverted_file,
            qvecs,
            qimids,
            params=step_parameters(self.params, "query_ivf", step_params),
            progress=progress,
        )
        return {"query_avg_time": watch.total() / max(len(ids), 1), "queries": len(ids)}, ids, ranks, scores

    @staticmethod
    def accumulate_scores(
        cdb: Codebook,
        kern: ASMKKernel,
        ivf: IVF,
        qvecs: np.ndarray,
        qimids: np.ndarray,
        params: Parameters,
        progress: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rank the images of an inverted file for each query image; what `query_ivf` does with the method's own.

        params   the parameters of the step `query_ivf`
        returns  the query ids [Q], ranks [Q, r] int64 and scores [Q, r] float64, as `query_ivf`
        """
        section(params, "aggregate", ())
        worth = partial(kern.similarity, **section(params, "similarity", ("similarity_threshold", "alpha")))
        search = section(params, "search", ("topk",))
        vectors, words = cdb.quantize(qvecs, **section(params, "quantize", ("multiple_assignment",)))
        queries = list(io_helpers.slice_unique(check_image_ids(qimids, len(vectors))))
        answers = []
        for _, rows in io_helpers.progress(queries, frequency=progress, header="Query"):
            aggregated = kern.aggregate_image(vectors[rows], words[rows])
            answers.append(ivf.search(*aggregated, similarity_func=worth, **search))
        ids = np.array([image for image, _ in queries], np.int64)
        ranks, scores = ([answer[place] for answer in answers] for place in (0, 1))
        return ids, _stacked(ranks, np.int64), _stacked(scores, np.float64)


class IvfBuilder:
    """An inverted file under construction, with its codebook and kernel.

    loaded_from_cache  whether the inverted file was read from `cache_path`
    """

    def __init__(
        self, step_params: Parameters, codebook: Codebook, kernel: ASMKKernel, *, cache_path: PathLike | None = None
    ) -> None:
        self.step_params = step_params
        self.codebook = codebook
        self.kernel = kernel
        self.cache_path = cache_path
        self.metadata: dict[str, Any] = {}
        options = section(step_params, "ivf", ("use_idf",))
        self.ivf = IVF(codebook.engine.words, codebook.engine.dim, binary=kernel.binary, **options)
        self.loaded_from_cache = False
        self._stored_images = -1
        if cache_path is not None and Path(cache_path).exists():
            watch = _Watch()
            self.ivf = self._read(cache_path)
            self.metadata["load_time"] = watch.total()
            self.loaded_from_cache = True
            self._stored_images = self.ivf.n_images

    def initialize_with_distractors(self, path: PathLike) -> None:
        """Start with the images of a stored inverted file, which get negative ids; ids of later images start at 0."""
        if self.ivf.n_images:
            raise InputError("distractors come before all other images; call initialize_with_distractors first")
        self.ivf = self._read(path)
        self.ivf.imid_offset = self.ivf.n_images

    def add(self, vecs: np.ndarray, imids: np.ndarray, *, progress: int | None = None) -> None:
        """Quantise, aggregate and add the descriptors [n, D] of the images `imids` [n]."""
        watch = _Watch()
        section(self.step_params, "aggregate", ())
        descriptors = check_descriptors(vecs, self.codebook.engine.dim)
        options = section(self.step_params, "quantize", ("multiple_assignment",))
        quantized = self.codebook.quantize(descriptors, check_image_ids(imids, len(descriptors)), **options)
        self.ivf.add(*self.kernel.aggregate(*quantized, progress=progress))
        self.metadata["index_time"] = self.metadata.get("index_time", 0.0) + watch.total()

    def save(self) -> None:
        """Write the inverted file to `cache_path`, if given and images were added since the last write."""
        if self.cache_path is not None and self._stored_images != self.ivf.n_images:
            write_state(Path(self.cache_path), self.ivf.state_dict())
            self._stored_images = self.ivf.n_images

    def _read(self, path: PathLike) -> IVF:
        """Read the inverted file at a path, with the weighting of the parameters."""
        engine = self.codebook.engine
        found = IVF.initialize_from_state(read_state(Path(path)), engine.words, engine.dim, where=path)
        if not found.n_images:
            found.binary = self.kernel.binary
        found.params = dict(self.ivf.params)
        if found.binary != self.kernel.binary:
            raise MismatchError(
                f"{path}: an inverted file with binary={found.binary}, but the parameters say {self.kernel.binary}; "
                "change build_ivf.kernel.binary, or build it again"
            )
        return found


class _Watch:
    """A stopwatch with the total time and lap times."""

    def __init__(self) -> None:
        self._begin = self._last = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last call."""
        now = time.perf_counter()
        spent, self._last = now - self._last, now
        return spent

    def total(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self._begin


def _given(value: np.ndarray | None, what: str, cache_path: PathLike | None) -> np.ndarray:
    if value is None:
        where = "and no cache_path was given" if cache_path is None else f"and there is no file {cache_path}"
        raise InputError(f"no {what} were given, {where}; give one of these")
    return value


def _stacked(rows: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.stack(rows) if rows else np.empty((0, 0), dtype)
