"""Feature sets: the raw local features of many images, as a folder of HDF5 part files.

A part holds whole images and is closed after 64 MiB or a minute, so a killed run loses at most the current part.
If a name occurs in several parts, the last one counts: this is how changed images are replaced.
"""

from asmk_engine.features.arrays import (
    ArrayFeatures,
    ImageArrays,
    NamedArrays,
    recipe_of_arrays,
    source_of_descriptors,
    source_of_images,
)
from asmk_engine.features.model import Features, Source, check_features, check_name, fingerprint_bytes, float_matrix
from asmk_engine.features.parts import part_names
from asmk_engine.features.reader import FeatureSet
from asmk_engine.features.source import FeatureSource, IdentifiedSource, Identities, descriptor_count, identified, label
from asmk_engine.features.writer import FeatureWriter

__all__ = [
    "ArrayFeatures",
    "FeatureSet",
    "FeatureSource",
    "FeatureWriter",
    "Features",
    "IdentifiedSource",
    "Identities",
    "ImageArrays",
    "NamedArrays",
    "Source",
    "check_features",
    "check_name",
    "descriptor_count",
    "fingerprint_bytes",
    "float_matrix",
    "identified",
    "label",
    "part_names",
    "recipe_of_arrays",
    "source_of_descriptors",
    "source_of_images",
]
