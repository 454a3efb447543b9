"""`asmk-engine info`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from asmk_engine.cli.common import PATH, human_bytes, json_option, plural
from asmk_engine.errors import InputError


@click.command()
@click.argument("path", type=PATH)
@json_option
@click.option("--names", is_flag=True, help="Print only the names of the images, one per line.")
@click.option("--failures", is_flag=True, help="Print only the images that extraction skipped, with the reasons.")
@click.option(
    "--without-features", is_flag=True, help="Print only the images without features, which no query can find."
)
def info(path: Path, as_json: bool, names: bool, failures: bool, without_features: bool) -> None:
    """Show the contents of a feature set, codebook or index.

    This includes counts, size on disk, and how PATH was made. White space, control characters and % in names are
    written as %XX. With --json, the options --names, --failures and --without-features each add a key to the object.

    \b
    Examples:
      asmk-engine info photos.index
      asmk-engine info photos.features --failures
    """
    from asmk_engine.maintenance import description as describe

    if names + failures + without_features > 1 and not as_json:
        raise click.UsageError("give one of --names, --failures and --without-features")
    if as_json:
        extra: dict[str, Any] = {"names": describe.image_names(path)} if names else {}
        extra |= {"failures": describe.failures(path)} if failures else {}
        extra |= {"without_features": describe.without_features(path)} if without_features else {}
        click.echo(json.dumps(describe.describe(path) | extra))
        return
    lines = _lines(path)
    if names or without_features:
        lines = _name_lines(describe.image_names(path) if names else describe.without_features(path))
    elif failures:
        lines = _failure_lines(describe.failures(path))
    for line in lines:
        click.echo(line)


def _name_lines(names: list[str]) -> Iterator[str]:
    from asmk_engine.escape import escape_name

    return map(escape_name, names)


def _failure_lines(failures: dict[str, str]) -> Iterator[str]:
    return (f"{_escaped_once(name)}\t{' '.join(reason.split())}" for name, reason in failures.items())


def _escaped_once(name: str) -> str:
    """Return the name of a failed image for output; a name that cannot be stored was escaped when recorded."""
    from asmk_engine.escape import escape_name, unescape_name

    try:
        unescape_name(name).encode()
    except UnicodeEncodeError:  # only an escaped name has this form
        return name
    except InputError:
        pass
    return escape_name(name)


def _lines(path: Path) -> Iterator[str]:
    from asmk_engine.maintenance.description import describe

    content = describe(path)
    kinds = {
        "features": _feature_rows, "codebook": _codebook_rows, "index": _index_rows, "global index": _global_rows,
        "fused index": _fused_rows, "sharded index": _sharded_rows,
    }  # fmt: skip
    rows = kinds[content["kind"]](content)
    return (f"{label:<18} {_printable(value)}" for label, value in rows)


def _printable(text: str) -> str:
    """Return the text on one line without control characters: an index may come from an untrusted source."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _feature_rows(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "feature set", content["path"]
    yield "images", f"{_number(content['images'])}, {_number(content['empty_images'])} of them without features"
    per_image = _decimals(content["descriptors_per_image"], 1)
    yield "descriptors", f"{_number(content['descriptors'])}, {per_image} per image"
    yield "descriptor", f"{content['dim']} dimensions, {content['dtype'] or 'none yet'}"
    yield "size", f"{human_bytes(content['bytes'])} in {plural(content['parts'], 'part')}"
    yield "extractor", _extractor(content)
    yield "made by", _recipe(content["recipe"])
    yield "images from", _roots(content)
    yield "skipped", plural(content["failed"], "image") + (": see --failures" if content["failed"] else "")


def _codebook_rows(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "codebook", content["path"]
    yield "words", _number(content["words"])
    yield from _codebook_origin(content)
    yield "size", human_bytes(content["bytes"])


def _codebook_origin(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "projection", f"{content['input_dim']} to {content['dim']} dimensions"
    yield "assignment", content["assignment"]
    if content["graph"] is not None:
        yield "graph", _graph(content["graph"])
    yield "features of", _recipe(content["recipe"])
    yield "trained", ", ".join(f"{key} {value}" for key, value in content["training"].items()) or "unknown"
    yield "fingerprint", content["fingerprint"]


def _index_rows(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "index", content["path"]
    yield "images", f"{_number(content['images'])}, {_number(content['empty_images'])} of them without words"
    yield "deleted", f"{_number(content['deleted_images'])} images, stored until the next merge"
    yield "words", f"{_number(content['words'])}, {_number(content['empty_words'])} of them in no image"
    yield "words per image", _decimals(content["words_per_image"], 1)
    yield (
        "postings",
        f"{_number(content['postings'])}, {_number(content['live_postings'])} of them of images not deleted",
    )
    yield "imbalance factor", _decimals(content["imbalance"], 2)
    yield "segments", _number(content["segments"])
    yield "size", human_bytes(content["bytes"])
    yield from ((f"  {part}", human_bytes(count)) for part, count in content["bytes_by_part"].items())
    ids = _decimals(content["id_bytes_per_posting"], 2)
    yield (
        "bytes per posting",
        f"{_decimals(content['bytes_per_posting'], 2)} without the codebook, {ids} of them image numbers",
    )
    yield from _neighbour_rows(content)
    yield from _calibration_rows(content)
    yield "code", f"{content['bits']} bits"
    if content["geometry"]:
        yield "geometry", _geometry(content["geometry"])
    if content["regions"]:
        yield "regions", _regions(content["regions"])
    yield "extractor", _extractor(content)
    yield from _codebook_origin(content)
    yield "features in", ", ".join(content["features"]) or "unknown"
    yield "images from", _roots(content)
    yield "made by", f"{content['made_by']}, commit {content['commit']}, identity {content['identity']}"


def _global_rows(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "global index", content["path"]
    yield "images", _number(content["images"])
    yield "deleted", f"{_number(content['deleted_images'])} images, stored until the next merge"
    yield "segments", _number(content["segments"])
    yield "size", human_bytes(content["bytes"])
    yield from ((f"  {part}", human_bytes(count)) for part, count in content["bytes_by_part"].items())
    each = _decimals(content["bytes_per_image"], 1)
    yield "bytes per image", f"{each}, {content['bytes_per_vector']} of them a vector"
    yield from _neighbour_rows(content)
    precision = f"{content['precision']} precision" if content["sub_space"] is None else "one byte per sub-space"
    yield "vector", f"{content['input_dim']} to {content['dim']} dimensions, {precision}"
    if content["augmentation"]:
        yield "augmented", ", ".join(f"{key} {value}" for key, value in content["augmentation"].items())
    yield "extractor", _extractor(content)
    yield "descriptors of", _recipe(content["recipe"])
    yield "trained", ", ".join(f"{key} {value}" for key, value in content["training"].items()) or "not"
    yield "fingerprint", content["fingerprint"]
    yield "features in", ", ".join(content["features"]) or "unknown"
    yield "images from", _roots(content)
    yield "made by", f"{content['made_by']}, commit {content['commit']}, identity {content['identity']}"


def _fused_rows(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "fused index", content["path"]
    yield "images", f"{_number(content['images'])}, {_number(content['empty_images'])} of them without features"
    yield "deleted", f"{_number(content['deleted_images'])} images, stored until the next merge"
    yield "segments", _number(content["segments"])
    yield "size", human_bytes(content["bytes"])
    yield from ((f"  {part}", human_bytes(count)) for part, count in content["bytes_by_part"].items())
    yield "bytes per image", f"{_decimals(content['bytes_per_image'], 1)} without codebooks and networks"
    yield from _neighbour_rows(content)
    yield from _calibration_rows(content)
    for kind in content["kinds"]:
        yield from _kind_rows(kind)
    yield "features in", ", ".join(content["features"]) or "unknown"
    yield "images from", _roots(content)
    yield "made by", f"{content['made_by']}, commit {content['commit']}, identity {content['identity']}"


def _sharded_rows(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "sharded index", content["path"]
    yield "images", f"{_number(content['images'])} in {plural(len(content['shards']), 'shard')}"
    yield "deleted", f"{_number(content['deleted_images'])} images, stored until the next merge"
    if content["words"] is not None:
        yield "words", f"{_number(content['words'])}, {_number(content['postings'])} postings"
    yield "segments", _number(content["segments"])
    yield "size", human_bytes(content["bytes"])
    for shard in content["shards"]:
        counts = f"{plural(shard['images'], 'image')}, {plural(shard['slots'], 'slot')}, {human_bytes(shard['bytes'])}"
        yield "shard", f"{shard['folder']}: {counts}, commit {shard['commit']}"
    yield "extractor", _extractor(content)
    for recipe in content["recipes"]:
        yield "features of", _recipe(recipe)
    yield "features in", ", ".join(content["features"]) or "unknown"
    yield "images from", _roots(content)
    made = f"{content['made_by']}, commit {content['commit']}, identity {content['identity']}"
    yield "made by", f"{made}; kind of the shards: {content['shard_kind']}"


def _kind_rows(kind: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of one kind of features of a fused index."""
    each = f"{_decimals(kind['bytes_per_image'], 1)} bytes per image"
    yield "kind", f"{kind['name']}, weight {kind['weight']:.4g}, {plural(kind['images'], 'image')}, {each}"
    if kind["words"] is None:
        yield "  vector", f"{kind['dim']} dimensions, {kind['precision']} precision"
    else:
        words, postings = _number(kind["words"]), _number(kind["postings"])
        yield "  words", f"{words}, {postings} postings with a code of {kind['bits']} bits"
    if kind["geometry"]:
        yield "  geometry", _geometry(kind["geometry"])
    yield "  extractor", _extractor(kind)
    yield "  features of", _recipe(kind["recipe"])
    yield "  trained", ", ".join(f"{key} {value}" for key, value in kind["training"].items()) or "not"
    yield "  fingerprint", kind["fingerprint"]


def _neighbour_rows(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the row of the neighbour table of an index, if it has one."""
    if (table := content["neighbours"]) is not None:
        each = _decimals(table["bytes_per_image"], 1)
        yield "neighbours", f"{plural(table['neighbours'], 'neighbour')} of an image, {each} bytes per image"


def _calibration_rows(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the row of the calibration of an index, if it has one."""
    if (found := content["calibration"]) is not None:
        how = "learned" if found["is_learned"] else "constants, too few matches to learn"
        text = f"{how}, from {plural(found['images'], 'image')} of {_number(found['indexed'])}"
        least = f"match from {found['match']:.3g}, maybe from {found['maybe']:.3g}"
        old = "; calibrate again" if found["is_outgrown"] else ""
        yield "verdicts", f"{text} at commit {found['commit']}, {least}{old}"


def _regions(regions: dict[str, Any]) -> str:
    """Return what the regions are and what becomes of them."""
    source = f"given boxes with a score of {regions['least_score']:g} or more"
    if regions["attention"] is not None:
        source = f"attention of {regions['attention']:g} or more of its range"
    elif regions["levels"] is not None:
        source = f"a grid of {plural(regions['levels'], 'level')}"
    use = "joined with the whole image in one signature" if regions["mode"] == "aggregate" else "separate entries"
    return f"{regions['mode']}: {source}, {use}; {_number(regions['entries'])} entries"


def _geometry(geometry: dict[str, Any]) -> str:
    keeps = geometry["keeps"]
    kept = "none" if keeps is None else "all" if keeps == "all" else f"the strongest {_number(keeps)}"
    text = f"{kept} of the features of new images; {_number(geometry['images'])} images have it"
    if geometry["images"]:
        each = _decimals(geometry["features_per_image"], 1), _decimals(geometry["bytes_per_image"], 1)
        text += f", {each[0]} features and {each[1]} bytes each"
    return text + (f"; {_number(geometry['images_without'])} do not" if geometry["images_without"] else "")


def _graph(graph: dict[str, Any]) -> str:
    """Return the beam of a graph and the recall measured with it."""
    used = "not used" if graph["beam"] is None else f"beam {graph['beam']}, spread {graph['spread']:g}"
    if graph["measured_beam"] is None:
        return f"{used}, recall not measured"
    at = f" at beam {graph['measured_beam']}" if graph["beam"] is None else ""
    recall = f"recall@1 {graph['recall_at_1']:.4f}, recall@5 {graph['recall_at_5']:.4f}{at}"
    low = "" if graph["enough"] else ", too low"
    return f"{used}, {recall} on {_number(graph['descriptors'])} held-out descriptors{low}"


def _roots(content: dict[str, Any]) -> str:
    """Return the root folders of the images, with the number of images of each."""
    if not content["roots"]:
        return ", ".join(content["images_roots"]) or "unknown"
    texts = []
    for root in content["roots"]:
        named = f", named {root['prefix']}…" if root["prefix"] else ""
        texts.append(f"{root['folder']} ({_number(root['images'])}{named})")
    unknown = content["images"] - sum(root["images"] for root in content["roots"])
    return ", ".join([*texts, *([f"unknown ({_number(unknown)})"] if unknown else [])])


def _extractor(content: dict[str, Any]) -> str:
    """Return the extractor and where its network came from."""
    facts = content["extractor"]
    parts = [f"{facts['preset']} ({facts['name']})" if facts["preset"] else facts["name"]]
    if facts["backbone"]:
        parts.append(f"network on {facts['backbone']}")
    source, digest = facts["published"] or facts["weights"]["file"], facts["weights"]["sha256"]
    if source or digest:
        known = [str(source or ""), f"sha256 {str(digest)[:16]}" if digest else ""]
        parts.append(f"made of weights {' '.join(filter(None, known))}")
    if isinstance(facts["whitened"], int):
        parts.append(f"whitened on {plural(facts['whitened'], 'image')}")
    return ", ".join(parts)


def _recipe(recipe: dict[str, Any]) -> str:
    from asmk_engine.recipes import Recipe

    return str(Recipe(**recipe))


def _number(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def _decimals(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
