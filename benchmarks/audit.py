"""How much of an overlap that is known does `asmk-engine audit` find, and what does it show people in vain?

    python benchmarks/audit.py PHOTOS --work FOLDER [--weights squeezenet1.1.npz] [--ways rootsift:sift ...]

PHOTOS has gnd.json and images/INSTANCE/ with the views of each instance, and images/_distractors/. Of eight instances
six are on both sides, one is only trained on and one only asked for; distractors are on one side each. Queries of an
instance are other views than those of its class (easy ones, which SIFT matches to one of them by the ground truth, and
hard ones), and three copies of a photograph of its class: encoded again, cropped, and shrunk. A perfect judge, who
knows the instances, answers all questions.

A way is an extractor and a verification. Features that an earlier way made are used again. Each line has the recall of
queries by kind, what is shown in vain, and what is removed in the end; the last line has it as JSON. What was measured
is kept in the folder, and not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from asmk_engine.audit import AuditInputs, AuditOptions, AuditReport, TrainingSource, report_again, run_audit
from asmk_engine.audit.judgements import JudgementJournal
from asmk_engine.audit.model import AuditPair
from asmk_engine.iteration import evenly
from asmk_engine.pipeline.extractor_choice import ExtractionOptions

WAYS = (
    "how-efficientnet-lite0:places", "how-efficientnet-lite0:sift", "rootsift:places", "rootsift:sift",
    "gem-squeezenet:places", "gem-squeezenet:sift",
)  # fmt: skip
LOCAL = "how-efficientnet-lite0"
"""What verifies candidates of a global descriptor."""
EASY, HARD = "view, easy", "view, hard"
COPIES = {"encoded": (1.0, 1.0, 25), "cropped": (0.6, 1.0, 80), "shrunk": (1.0, 0.4, 80)}
"""Kind of a copy → the share of each side that is kept, the scale, and the quality of the JPEG."""
KINDS = (EASY, HARD, *COPIES)
VIEWS, TRAINED, ASKED = 2, 200, 50
"""Views that are queries of each instance, and distractors on both sides."""


@dataclass(frozen=True)
class Asked:
    """What a query shows: its instance, how it overlaps with the training set; None for one that does not."""

    instance: str
    kind: str | None


@dataclass(frozen=True)
class WayResult:
    """What a way found.

    recall          kind of overlap → share of queries of which a right image is found
    queries         number of queries of each kind
    whole           recall of all kinds together
    matched         recall without hard views, which SIFT does not match
    pairs, right    pairs that people see, and those that show the same
    false_queries   queries that overlap with nothing, of which a pair is shown
    false_classes   classes that no query shows, of which a pair is shown
    removed         share of the overlapping classes that a perfect judge removes
    wrongly         classes that are removed and overlap with nothing
    chance          pairs that were not found, and are with the query mirrored
    seconds         processor time of the automatic stages, without features that an earlier way made
    """

    way: str
    recall: dict[str, float]
    queries: dict[str, int]
    whole: float
    matched: float
    pairs: int
    right: int
    false_queries: int
    false_classes: int
    removed: float
    wrongly: int
    chance: int
    seconds: float


def main() -> None:
    """Parse the arguments, make both sides, audit them in each way, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for both sides and the audits")
    parser.add_argument("--weights", type=Path, help="weights of the network of global descriptors")
    parser.add_argument("--ways", nargs="+", default=WAYS, metavar="EXTRACTOR:VERIFICATION")
    parser.add_argument("--top", type=int, default=20, help="candidates of each query")
    parser.add_argument("--evidence", type=float, help="least evidence of a pair")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    asked = make_sides(options.photos, options.work)
    found = {}
    for way in options.ways:
        stored = options.work / f"{way.replace(':', '-')}-top-{options.top}-evidence-{options.evidence}.json"
        if not stored.exists():
            stored.write_text(json.dumps(asdict(audited(way, options, asked))))
        found[way] = json.loads(stored.read_text())
        print(line(WayResult(**found[way])), flush=True)
    print(json.dumps(found))


def make_sides(photos: Path, work: Path) -> dict[str, Asked]:
    """Write the photographs of both sides into train/CLASS/ and test/, and return what each query shows."""
    easy = easy_pairs(photos / "gnd.json")
    places = [place for place in sorted((photos / "images").iterdir()) if place.name != "_distractors"]
    asked: dict[str, Asked] = {}
    for number, place in enumerate(places):
        views = sorted(place.iterdir())
        trained, others = views[: (len(views) + 1) // 2], views[(len(views) + 1) // 2 :][:VIEWS]
        if number % 8 == 7:
            trained = []
        for view in trained:
            written(view, work / "train" / place.name / f"{view.stem}.jpg", 1.0, 1.0, 90)
        if number % 8 != 3:
            asked |= queries(place.name, trained, others, easy, work / "test")
    distractors = sorted((photos / "images" / "_distractors").iterdir())
    for number, view in enumerate(evenly(distractors, TRAINED + ASKED)):
        if number % (1 + TRAINED // ASKED):
            written(view, work / "train" / f"other-{number // 2}" / f"{view.stem}.jpg", 1.0, 1.0, 90)
        else:
            written(view, work / "test" / f"{view.stem}.jpg", 1.0, 1.0, 80)
            asked[f"{view.stem}.jpg"] = Asked("", None)
    return asked


def easy_pairs(path: Path) -> set[frozenset[str]]:
    """Return the pairs of photographs that are easy by a ground truth, as `INSTANCE/NAME`."""
    found = json.loads(path.read_text())["queries"]
    short = {name: "/".join(name.split("/")[-2:]) for one in found for name in (one["query"], *one["easy"])}
    return {frozenset((short[one["query"]], short[name])) for one in found for name in one["easy"]}


def queries(
    instance: str, trained: Sequence[Path], others: Sequence[Path], easy: set[frozenset[str]], folder: Path
) -> dict[str, Asked]:
    """Write the queries of an instance, and return what they show; `trained` is empty if it is not trained on."""
    asked = {}
    for number, view in enumerate(others):
        pairs = (frozenset((f"{instance}/{view.name}", f"{instance}/{one.name}")) for one in trained)
        kind = None if not trained else EASY if any(pair in easy for pair in pairs) else HARD
        name = f"{instance}-view-{number}.jpg"
        written(view, folder / name, 1.0, 1.0, 80)
        asked[name] = Asked(instance, kind)
    for kind, how in COPIES.items() if trained else ():
        name = f"{instance}-{kind}.jpg"
        written(trained[0], folder / name, *how)
        asked[name] = Asked(instance, kind)
    return asked


def written(source: Path, target: Path, share: float, scale: float, quality: int) -> None:
    """Write a JPEG of the middle of a photograph, `share` of each side, at a scale; one that is there is kept."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    width, height = picture.size
    left, top = round(width * (1 - share) / 2), round(height * (1 - share) / 2)
    picture = picture.crop((left, top, width - left, height - top))
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    picture.save(target, quality=quality)


def lend(work: Path, lender: str, borrower: str, name: str) -> None:
    """Give an audit the features that the audit of another extractor made of both sides, if there are any."""
    for part in ("", "-queries"):
        source = work / f"audit-{lender}" / "work" / f"train{part}.features"
        target = work / f"audit-{borrower}" / "work" / f"{name}{part}.features"
        if source.exists() and not target.exists() and lender != borrower:
            shutil.copytree(source, target)


def processor_seconds() -> float:
    """Return the processor time of this process and of its children that ended."""
    return sum(os.times()[:4])


def audited(way: str, options: argparse.Namespace, asked: dict[str, Asked]) -> WayResult:
    """Audit both sides in a way, let the perfect judge answer, and measure what was found and what is removed."""
    extractor, _, verification = way.partition(":")
    extraction = ExtractionOptions(extractor, options.weights if "gem" in extractor else None, workers=options.workers)
    inputs = AuditInputs(TrainingSource(options.work / "train"), (options.work / "test",))
    chosen = AuditOptions(top=options.top, verification=verification, evidence=options.evidence)
    local = ExtractionOptions(LOCAL if "gem" in extractor and verification == "places" else None)
    for lender, name in ((LOCAL, "local"), ("rootsift", "sift")):
        lend(options.work, lender, extractor, name)
    begun = processor_seconds()
    report = run_audit(inputs, options.work / f"audit-{extractor}", chosen, extraction=extraction, local=local)
    seconds = processor_seconds() - begun
    shown = [(asked[pair.query.removeprefix("test/")], pair) for pair in report.questions.pairs]
    return result_of(way, asked, shown, judged(report, shown), seconds)


def judged(report: AuditReport, shown: Iterable[tuple[Asked, AuditPair]]) -> AuditReport:
    """Let someone answer who knows the instances, and return the report with these answers."""
    with JudgementJournal(report.folder) as journal:
        for one, pair in shown:
            journal.add(pair.key, "perfect", "same" if pair.label == one.instance else "different")
    return report_again(report.folder)


def result_of(
    way: str, asked: dict[str, Asked], shown: Sequence[tuple[Asked, AuditPair]], report: AuditReport, seconds: float
) -> WayResult:
    """Compare the pairs that are shown, and the classes that are removed, with what is known."""
    right = {pair.query.removeprefix("test/") for one, pair in shown if pair.label == one.instance}
    of_kind = {kind: [name for name, one in asked.items() if one.kind == kind] for kind in KINDS}
    overlapping = [name for names in of_kind.values() for name in names]
    instances = {asked[name].instance for name in overlapping}
    removed = {one.label for one in report.decision.removed}
    return WayResult(
        way,
        {kind: share(names, right) for kind, names in of_kind.items()},
        {kind: len(names) for kind, names in of_kind.items()},
        share(overlapping, right),
        share([name for name in overlapping if asked[name].kind != HARD], right),
        len(shown),
        sum(pair.label == one.instance for one, pair in shown),
        len({pair.query for one, pair in shown if one.kind is None}),
        len({pair.label for _, pair in shown} - instances),
        share(instances, removed),
        len(removed - instances),
        report.questions.counts.chance,
        round(seconds, 1),
    )


def share(names: Iterable[str], found: set[str]) -> float:
    """Return the share of names that were found; 1 for no names."""
    every = list(names)
    return round(sum(name in found for name in every) / len(every), 4) if every else 1.0


def line(result: WayResult) -> str:
    """Return a row of the table."""
    return "| " + " | ".join(_cells(result)) + " |"


def _cells(result: WayResult) -> Iterator[str]:
    yield f"{result.way:<29}"
    yield f"{result.whole:.3f}"
    yield f"{result.matched:.3f}"
    for kind, value in result.recall.items():
        yield f"{kind} {round(value * result.queries[kind])}/{result.queries[kind]}"
    yield f"pairs {result.right}/{result.pairs}"
    yield f"false queries {result.false_queries}"
    yield f"false classes {result.false_classes}"
    yield f"removed {result.removed:.3f}"
    yield f"wrongly {result.wrongly}"
    yield f"chance {result.chance}"
    yield f"{result.seconds:.0f} s"


if __name__ == "__main__":
    main()
