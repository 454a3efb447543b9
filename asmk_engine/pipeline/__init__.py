"""From photographs to features and to an index, each in one call, for programs and for the command line alike.

`index_images` and `extract_features` report what they did and what they could not do; `index_folder` and
`extract_folder`, which `asmk_engine` exports, are their short forms: they return the index or the features, warn, and
raise.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "CodebookOptions",
    "Console",
    "ExtractionOptions",
    "ExtractionReport",
    "GlobalIndexOptions",
    "IndexingReport",
    "IntakeOptions",
    "Silent",
    "extract_features",
    "extract_folder",
    "index_folder",
    "index_images",
]

_homes = {
    "GlobalIndexOptions": "asmk_engine.pipeline.global_indexing",
    "Console": "asmk_engine.pipeline.display",
    "ExtractionOptions": "asmk_engine.pipeline.extractor_choice",
    "ExtractionReport": "asmk_engine.pipeline.extraction",
    "IndexingReport": "asmk_engine.pipeline.indexing",
    "IntakeOptions": "asmk_engine.pipeline.extraction",
    "Silent": "asmk_engine.iteration",
    "CodebookOptions": "asmk_engine.pipeline.codebook_training",
    "extract_features": "asmk_engine.pipeline.extraction",
    "extract_folder": "asmk_engine.pipeline.folders",
    "index_folder": "asmk_engine.pipeline.folders",
    "index_images": "asmk_engine.pipeline.indexing",
}

if TYPE_CHECKING:
    from asmk_engine.iteration import Silent as Silent
    from asmk_engine.pipeline.codebook_training import CodebookOptions
    from asmk_engine.pipeline.display import Console
    from asmk_engine.pipeline.extraction import ExtractionReport, IntakeOptions, extract_features
    from asmk_engine.pipeline.extractor_choice import ExtractionOptions
    from asmk_engine.pipeline.folders import extract_folder, index_folder
    from asmk_engine.pipeline.global_indexing import GlobalIndexOptions
    from asmk_engine.pipeline.indexing import IndexingReport, index_images
else:  # loaded on first use: the command line takes only the display from here to print its help

    def __getattr__(name: str) -> object:
        """Import a name from its home on first use (PEP 562)."""
        if name not in _homes:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_homes[name]), name)
        globals()[name] = value
        return value
