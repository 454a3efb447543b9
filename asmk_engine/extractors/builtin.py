"""The extractors of this package, by name."""

from __future__ import annotations

EXTRACTORS = {
    "rootsift": "asmk_engine.extractors.rootsift:RootSift",
    "how": "asmk_engine.extractors.how:How",
    "delf": "asmk_engine.extractors.delf:Delf",
    "gem": "asmk_engine.extractors.global_descriptors:Gem",
    "spoc": "asmk_engine.extractors.global_descriptors:Spoc",
    "mac": "asmk_engine.extractors.global_descriptors:Mac",
    "rmac": "asmk_engine.extractors.global_descriptors:Rmac",
    "crow": "asmk_engine.extractors.global_descriptors:Crow",
    "how-global": "asmk_engine.extractors.how_global:HowGlobal",
    "dolg": "asmk_engine.extractors.composed:Dolg",
    "solar": "asmk_engine.extractors.composed:Solar",
}
"""Where each extractor is defined, as `module:class`; modules are imported on first use."""
