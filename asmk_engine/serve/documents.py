"""What the description of the API says of bodies and answers that are read and written by hand."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_FILE = {"type": "string", "format": "binary"}
_NUMBERS = {"type": "array", "items": {"type": "number"}}


def _many(item: dict[str, Any], about: str) -> dict[str, Any]:
    return {"type": "array", "items": item, "description": about}


def _body(properties: dict[str, Any], *kinds: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties}
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


def _answer(properties: dict[str, Any], about: str) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "object", "properties": properties}
    return {200: {"description": about, "content": {"application/json": {"schema": schema}}}}


_FORM, _JSON = "multipart/form-data", "application/json"
_INDEX = {"index": {**_TEXT, "description": "name of an index; the first by default"}}

SEARCH_BODY = _body(
    {
        **_INDEX,
        "name": _many(_TEXT, "names of indexed images"),
        "upload": _many(_TEXT, "uploads that the server keeps"),
        "file": _many(_FILE, "photographs, in a form only; they are kept as uploads"),
        "box": {
            **_TEXT,
            "description": "x1,y1,x2,y2: region of the only photograph, in pixels of the upright original",
        },
        "top": {"type": "integer", "default": 30, "minimum": 1, "maximum": 1000, "description": "number of hits"},
        "rerank": {"type": "integer", "default": 50, "minimum": 0, "maximum": 200, "description": "images to verify"},
        "rotations": {"type": "boolean", "default": False, "description": "also search turned by quarters"},
        "mirror": {"type": "boolean", "default": False, "description": "also search mirrored"},
    },
    _FORM,
    _JSON,
)
UPLOAD_BODY = _body({"file": {**_FILE, "description": "one photograph"}}, _FORM)
ADD_BODY = _body({**_INDEX, "file": _many(_FILE, "photographs")}, _FORM)
NAMES_BODY = _body({**_INDEX, "names": _many(_TEXT, "names of images")}, _JSON)
GROUPS_BODY = _body(_INDEX, _JSON)

_OUTLINE = _many(_NUMBERS, "corners x, y in pixels of the upright original")
HIT = {
    "rank": {"type": "integer"},
    "name": _TEXT,
    "score": {"type": "number"},
    "verdict": {**_TEXT, "enum": ["match", "maybe", "no"], "nullable": True},
    "probability": {"type": "number", "nullable": True},
    "turn": {**_TEXT, "description": "how the query was turned to find it: mirrored, 90, ..."},
    "question": {"type": "integer", "description": "which photograph of the question it fits best"},
    "size": {**_NUMBERS, "description": "width and height of the hit"},
    "inliers": {"type": "integer", "description": "pairs of features that one map explains"},
    "places": {"type": "integer", "description": "their distinct places"},
    "region": {**_OUTLINE, "description": "outline of the match in the hit"},
    "query_region": {**_OUTLINE, "description": "outline of the match in the query"},
    "overlap": {"type": "object", "description": "per cent of query and image that the outlines cover"},
    "affine": _many(_NUMBERS, "2 x 3: (u, v, 1) in the query is mapped to pixels of the hit"),
    "metadata": {"type": "object"},
}
SEARCH_ANSWER = _answer(
    {
        "index": _TEXT,
        "commit": {"type": "integer"},
        "question": _many({"type": "object"}, "the photographs, uploads with the key under which they are kept"),
        "hits": _many({"type": "object", "properties": HIT}, "best first"),
        "more": {"type": "boolean"},
        "seconds": {"type": "object"},
        "notes": _many(_TEXT, "what the reader should know"),
    },
    "The images that show the same thing, best first.",
)
COMPARE_ANSWER = _answer(
    {
        "hit": {"type": "object", "properties": HIT},
        "query": {"type": "object"},
        "image": {"type": "object"},
        "pairs": _many({"type": "object"}, "matched features: query and image (x, y, scale), word, similarity, weight"),
    },
    "Where the two match.",
)
