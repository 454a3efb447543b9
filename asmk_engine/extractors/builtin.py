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
    "agem": "asmk_engine.extractors.composed:Agem",
    "cider": "asmk_engine.extractors.composed:Cider",
    "cvnet": "asmk_engine.extractors.composed:Cvnet",
    "delg": "asmk_engine.extractors.composed:Delg",
    "delg-local": "asmk_engine.extractors.delg_local:DelgLocal",
    "dolg": "asmk_engine.extractors.composed:Dolg",
    "dplg": "asmk_engine.extractors.composed:Dplg",
    "gem-ap": "asmk_engine.extractors.composed:GemAp",
    "glam": "asmk_engine.extractors.composed:Glam",
    "solar": "asmk_engine.extractors.composed:Solar",
    "token": "asmk_engine.extractors.composed:Token",
}
"""Where each extractor is defined, as `module:class`; modules are imported on first use."""
