"""Earlier names that are still accepted: options of the command line, and names in files of networks and features."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from asmk_engine.cli import commands
from asmk_engine.cli.common import RenamedOption
from asmk_engine.networks.checkpoints import open_checkpoint, save_checkpoint
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.stored_names import from_stored, to_stored
from asmk_engine.recipes import Recipe
from asmk_engine.storage.arrays import map_arrays
from asmk_engine.storage.folder import Folder

EARLIER = {
    "benchmark": {"--truth": "--ground-truth"},
    "evaluate": {"--truth": "--ground-truth"},
    "import": {"--truth": "--ground-truth"},
    "query": {"--sheet": "--contact-sheet"},
    "reproduce": {"--truth": "--ground-truth"},
    "train-ablation": {"--trunk-skip": "--backbone-skip"},
    "train-delf": {"--freeze-trunk": "--freeze-backbone", "--trunk": "--backbone", "--trunk-skip": "--backbone-skip"},
    "train-how": {"--self-made": "--augmented-pairs"},
}
SHA256 = "35a3bfc6afcc426fc26dcf9989deeb361cb7f4f7265bb387b82a8b623fdceb1c"


def options_of(command: click.Command) -> list[RenamedOption]:
    return [one for one in command.params if isinstance(one, RenamedOption)]


def test_every_renamed_option_is_known_here() -> None:
    found = {
        name: {one.earlier: one.opts[0] for one in options_of(command)} for name, command in commands.commands.items()
    }
    assert {name: renamed for name, renamed in found.items() if renamed} == EARLIER


@pytest.mark.parametrize("name", EARLIER)
def test_earlier_spellings_are_taken_and_not_shown(name: str) -> None:
    command = commands.commands[name]
    shown = CliRunner().invoke(commands, [name, "--help"]).output
    for earlier, present in EARLIER[name].items():
        assert f"{present} " in shown and f"{earlier} " not in shown
    for one in options_of(command):
        parser = command.make_parser(click.Context(command))
        value = [] if one.is_flag else ["7"]
        by_name = [parser.parse_args([spelling, *value])[0][one.name] for spelling in (one.earlier, one.opts[0])]
        assert by_name[0] == by_name[1] and len(one.opts) == 1


def test_a_missing_option_is_named_as_it_is_spelled_today(tmp_path: Path) -> None:
    result = CliRunner().invoke(commands, ["benchmark", "a=b", "-o", str(tmp_path / "o")])
    assert (
        result.exit_code == 2
        and "'--ground-truth'" in result.output
        and "--truth'" not in result.output.replace("ground-truth", "")
    )


def test_a_network_has_the_bytes_that_it_had_under_its_earlier_names(tmp_path: Path) -> None:
    """Features name their network by the sha256 of its file; this one was written before anything was renamed."""
    network = LocalNetwork(LocalOptions("squeezenet1_1", 10, dim=8))
    for value in network.state_dict().values():
        torch.nn.init.constant_(value, 0.5)
    found = save_checkpoint(tmp_path / "n.safetensors", network, {"backbone_sha256": "00", "max_side": 64})
    assert found == hashlib.sha256((tmp_path / "n.safetensors").read_bytes()).hexdigest() == SHA256
    file = map_arrays(Folder(tmp_path), "n.safetensors")
    assert "trunk.features.0.weight" in file.arrays and json.loads(file.metadata["network"])["trunk"] == "squeezenet1_1"
    again, origin = open_checkpoint(tmp_path / "n.safetensors")
    assert again.options == network.options and origin == {"backbone_sha256": "00", "max_side": 64}


def test_recipes_of_imported_features_keep_their_text() -> None:
    text = '{"extractor":"hloc","options":{"dim":8,"features":"disk"},"weights":null}'
    recipe = Recipe("imported", {"features": "disk", "dim": 8})
    assert (
        recipe.to_json() == text and Recipe.from_json(text) == recipe and Recipe.from_json(text).extractor == "imported"
    )
    assert Recipe.from_json(text.replace("hloc", "imported")) == recipe and str(recipe).startswith("imported ")


KEYS = st.sampled_from(["backbone.conv1.weight", "network.backbone.x", "batch_size", "dim", "bone", "ground_truth"])


@given(
    st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner), max_leaves=8).filter(
        lambda x: isinstance(x, dict)
    )
)
def test_names_come_back_from_storage(content: dict) -> None:
    stored = to_stored(content)
    assert from_stored(stored) == content == from_stored(content)
    assert "backbone" not in json.dumps(stored) and "batch_size" not in json.dumps(stored)
