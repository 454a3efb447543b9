"""How accurate are the default settings on a folder of images with a ground truth, and how long does each step take?

    python benchmarks/photographs.py PHOTOS --ground-truth gnd.json --work FOLDER [--seeds 3] [-- extract options]

Runs the command line: extract once, then build-codebook, index and evaluate for every seed. Each result is a JSON line;
the last one has the means over the seeds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

DIFFICULTIES = ("easy", "medium", "hard")


def run(*arguments: object) -> tuple[str, float]:
    """Run one command; return its standard output and wall-clock seconds."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "asmk_engine", *map(str, arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return output, time.perf_counter() - begun


def one_seed(features: Path, ground_truth: Path, work: Path, seed: int) -> dict[str, float]:
    """Build codebook and index and evaluate for one seed; return the seconds of each step, and the three mAPs."""
    codebook, index = work / f"seed-{seed}.codebook.h5", work / f"seed-{seed}.index"
    shutil.rmtree(index, ignore_errors=True)
    _, training = run("build-codebook", features, "-o", codebook, "--seed", seed)
    _, indexing = run("index", features, "--codebook", codebook, "-o", index)
    output, evaluation = run("evaluate", index, "--ground-truth", ground_truth, "--json")
    report = json.loads(output.splitlines()[-1])
    described = json.loads(run("info", index, "--json")[0])
    return {
        "seed": seed,
        **{difficulty: report[difficulty]["mAP"] for difficulty in DIFFICULTIES},
        "words": described["words"],
        "postings": described["postings"],
        "bytes_per_posting": described["bytes_per_posting"],
        "codebook_s": training,
        "index_s": indexing,
        "evaluate_s": evaluation,
    }


def main() -> None:
    """Parse the arguments, run all seeds, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for features, codebooks and indexes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("extract_options", nargs="*", help="options of `asmk-engine extract`, after --")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    features = arguments.work / "photos.features"
    _, extraction = run("extract", arguments.photos, "-o", features, *arguments.extract_options)
    results = []
    for seed in range(arguments.seeds):
        results.append(one_seed(features, arguments.ground_truth, arguments.work, seed))
        print(json.dumps(results[-1]), flush=True)
    means = {key: statistics.fmean(result[key] for result in results) for key in results[0] if key != "seed"}
    print(json.dumps({"seeds": arguments.seeds, "extract_s": extraction, **means}))


if __name__ == "__main__":
    main()
