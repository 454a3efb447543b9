"""Makes the whitening and the vocabulary that come with the package, in `codebooks/shipped/`.

    python benchmarks/shipped.py whitening NETWORK.safetensors --name how-efficientnet-lite0
    python benchmarks/shipped.py vocabulary FEATURES... --name how-efficientnet-lite0 --words 8192
        --purpose "..." --learned-from "..." --licence "..." [--seed 0]

`whitening` takes the reduction of a network that `asmk-engine whiten` made. `vocabulary` trains a codebook on feature
sets, which must be of the network that the package now assembles from its whitening and the published backbone, rounds
its words to half precision, and writes it with its card. No image and no descriptor is written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from asmk_engine.codebooks import Codebook
from asmk_engine.codebooks.shipped import SUFFIX
from asmk_engine.features import FeatureSet
from asmk_engine.networks.shipped import SUFFIX as WHITENING_SUFFIX
from asmk_engine.networks.shipped import save_whitening
from asmk_engine.storage.user_files import file_sha256

FOLDER = Path(__file__).parents[1] / "codebooks" / "shipped"


def main() -> None:
    """Parse the arguments and write what they ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    whitening = commands.add_parser("whitening")
    whitening.add_argument("network", type=Path)
    vocabulary = commands.add_parser("vocabulary")
    vocabulary.add_argument("features", type=Path, nargs="+")
    vocabulary.add_argument("--words", type=int, required=True)
    vocabulary.add_argument("--seed", type=int, default=0)
    vocabulary.add_argument("--rounds", type=int, default=10)
    vocabulary.add_argument("--learned-from", required=True)
    vocabulary.add_argument("--licence", required=True)
    vocabulary.add_argument("--purpose", required=True)
    for command in (whitening, vocabulary):
        command.add_argument("--name", required=True)
        command.add_argument("-o", "--output", type=Path, default=FOLDER)
    options = parser.parse_args()
    if options.command == "whitening":
        save_whitening(options.output / f"{options.name}{WHITENING_SUFFIX}", options.network)
    else:
        write_vocabulary(options)


def write_vocabulary(options: argparse.Namespace) -> None:
    """Train, round and write a codebook and its card, and print its size and the recipe it is for."""
    sets = [FeatureSet.open(path) for path in options.features]
    recipes = {one.recipe for one in sets}
    if len(recipes) > 1:
        raise SystemExit(f"the feature sets have {len(recipes)} recipes; extract them in one way")

    descriptors = [image.descriptors for one in sets for _, image in one.images()]
    codebook = Codebook.train(
        descriptors, options.words, seed=options.seed, rounds=options.rounds, recipe=recipes.pop(), assignment="exact"
    ).rounded()
    path = options.output / f"{options.name}{SUFFIX}"
    codebook.save(path, half=True)
    names = " ".join(one.path.name for one in sets)
    card = {
        "name": options.name,
        "purpose": options.purpose,
        "words": codebook.words,
        "sha256": file_sha256(path),
        "recipe": codebook.recipe.to_json(),
        "learned_from": options.learned_from,
        "licence": options.licence,
        "made_by": f"python benchmarks/shipped.py vocabulary {names} --name {options.name} --words {options.words} "
        f"--seed {options.seed} --rounds {options.rounds}",
    }
    (options.output / f"{options.name}.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    print(f"{path}: {path.stat().st_size} bytes, [{codebook.recipe}]")


if __name__ == "__main__":
    main()
