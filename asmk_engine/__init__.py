"""Image retrieval with the Aggregated Selective Match Kernel (ASMK): find images that show the same object.

From a folder to an index in one call, and a query:

    index = asmk_engine.index_folder("photos/", "photos.index", progress=True)
    hits = asmk_engine.Searcher(index).search("query.jpg", top=10)      # described as the index's own photographs

The same step by step:

    extractor = load_extractor("rootsift", max_features=2000)
    photos = extractor.extract_folder("photos/", "photos.features")     # resumable; skips and records broken images
    codebook = Codebook.train(photos, words="auto", seed=0)
    codebook.save("my.codebook.h5")
    index = Index.create("photos.index", codebook)
    index.add(photos)
    index.delete(["old.jpg"])
    index.merge()
    searcher = Searcher(index, SelectiveMatch(alpha=3.0, threshold=0.0), multiple_assignment=5)
    hits = searcher.search("query.jpg", top=10, box=(100, 50, 400, 380))
    hits = searcher.search("query.jpg", top=10, rerank=50)              # verified: hits[0].matches says where
    rankings = searcher.search((features for _, features in photos.images()), top=20)    # many queries

`FeatureSet.open`, `Codebook.open` and `open_index` open what was stored. Every expected failure is an `AsmkError` with
a message of one line: what was found, what was expected, the cure.

Public names are imported on first use, so that `import asmk_engine` stays fast and loads neither torch nor Numba nor
HDF5.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from asmk_engine.version import __version__ as __version__

# An installation has kernels/ and codebooks/ inside this package (setup.cfg); a checkout has them next to it. The test
# is for the file, not the folder, because Numba's cache files can keep an otherwise empty kernels/ folder alive.
_here = Path(__file__).parent
if not (_here / "kernels" / "__init__.py").is_file():
    __path__.append(str(_here.parent))

__all__ = [
    "AsmkError",
    "AsmkWarning",
    "Codebook",
    "FeatureSet",
    "FeatureSource",
    "Features",
    "FusedIndex",
    "FusedSearcher",
    "GlobalIndex",
    "GlobalSearcher",
    "Hit",
    "Index",
    "Match",
    "Reranking",
    "Searcher",
    "SelectiveMatch",
    "Signature",
    "Verification",
    "extract_folder",
    "index_folder",
    "load_extractor",
    "open_index",
    "register_extractor",
    "scores",
    "similarity",
]

_homes = {
    "AsmkError": "asmk_engine.errors",
    "AsmkWarning": "asmk_engine.errors",
    "Codebook": "asmk_engine.codebooks",
    "FeatureSet": "asmk_engine.features",
    "FeatureSource": "asmk_engine.features",
    "Features": "asmk_engine.features",
    "FusedIndex": "asmk_engine.fused.index",
    "FusedSearcher": "asmk_engine.fused.search",
    "GlobalIndex": "asmk_engine.flat.index",
    "GlobalSearcher": "asmk_engine.flat.search",
    "Hit": "asmk_engine.indexes.answers",
    "Index": "asmk_engine.inverted.index",
    "Match": "asmk_engine.verification.match",
    "Reranking": "asmk_engine.verification.reranking",
    "Searcher": "asmk_engine.inverted.search",
    "SelectiveMatch": "asmk_engine.inverted.search",
    "Signature": "asmk_engine.inverted.signatures",
    "Verification": "asmk_engine.verification.match",
    "extract_folder": "asmk_engine.pipeline.folders",
    "index_folder": "asmk_engine.pipeline.folders",
    "load_extractor": "asmk_engine.extractors",
    "open_index": "asmk_engine.search.opening",
    "register_extractor": "asmk_engine.extractors.registry",
    "scores": "asmk_engine.inverted.pairwise",
    "similarity": "asmk_engine.inverted.pairwise",
}

if TYPE_CHECKING:
    from asmk_engine.codebooks import Codebook
    from asmk_engine.errors import AsmkError, AsmkWarning
    from asmk_engine.extractors import load_extractor
    from asmk_engine.extractors.registry import register_extractor
    from asmk_engine.features import Features, FeatureSet, FeatureSource
    from asmk_engine.flat.index import GlobalIndex
    from asmk_engine.flat.search import GlobalSearcher
    from asmk_engine.fused.index import FusedIndex
    from asmk_engine.fused.search import FusedSearcher
    from asmk_engine.indexes.answers import Hit
    from asmk_engine.inverted.index import Index
    from asmk_engine.inverted.pairwise import scores, similarity
    from asmk_engine.inverted.search import Searcher, SelectiveMatch
    from asmk_engine.inverted.signatures import Signature
    from asmk_engine.pipeline.folders import extract_folder, index_folder
    from asmk_engine.search.opening import open_index
    from asmk_engine.verification.match import Match, Verification
    from asmk_engine.verification.reranking import Reranking
else:  # hidden from type checkers, which would otherwise accept any attribute of the package

    def __getattr__(name: str) -> object:
        """Import a public name from its module on first use (PEP 562)."""
        if name not in _homes:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_homes[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
