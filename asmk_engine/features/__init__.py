"""Feature sets: the raw local features of many images, as a folder of HDF5 part files.

A part holds whole images and is closed after 64 MiB or a minute, so a killed run loses at most the current part.
If a name occurs in several parts, the last one counts: this is how changed images are replaced.
"""

from asmk_engine.features.model import Features, Source, check_features, check_name, fingerprint_bytes
from asmk_engine.features.parts import part_names
from asmk_engine.features.reader import FeatureSet, Identities
from asmk_engine.features.writer import FeatureWriter

__all__ = [
    "FeatureSet",
    "FeatureWriter",
    "Features",
    "Identities",
    "Source",
    "check_features",
    "check_name",
    "fingerprint_bytes",
    "part_names",
]
