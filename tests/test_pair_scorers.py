"""Scorers of pairs out of features: the verification of DELF and DELG, and the Reranking Transformer."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fused_histories
from asmk_engine import Features
from asmk_engine.errors import AsmkWarning, InputError, MismatchError, NotFoundError
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.indexes.answers import Hit
from asmk_engine.networks.reranking.image_tokens import ScaleUnit, image_tokens
from asmk_engine.networks.reranking.transformer import RerankingTransformer
from asmk_engine.networks.reranking.transformer_files import save_transformer
from asmk_engine.networks.reranking.transformer_options import TransformerOptions
from asmk_engine.networks.reranking.transformer_pairs import PairTransformer, pair_logits, token_batch
from asmk_engine.recipes import Recipe
from asmk_engine.reranking.affine_ransac_scorer import AffineRansacScorer, by_inliers
from asmk_engine.reranking.by_features import feature_reranker, unit_of
from asmk_engine.reranking.described import Kinds, PairImages, filled
from asmk_engine.reranking.evaluation import evaluate_reranked
from asmk_engine.reranking.ranking import PairReranker
from asmk_engine.reranking.transformer_scorer import TransformerScorer, by_logits
from asmk_engine.search.query_features import query_source
from asmk_engine.verification.affine_ransac import AffineRansac, ransac_match

LOCAL, WHOLE = Recipe("delg-local"), Recipe("delg")
SMALL = TransformerOptions(global_dim=6, dim=8, layers=1, heads=2, hidden=8, features=5)


def local_features(rng, count, base=None):
    """Features of the base at moved places, and others."""
    descriptors, places = rng.normal(size=(count, 8)), rng.uniform(0, 500, (count, 2))
    if base is not None:
        shared = min(count, len(base))
        descriptors[:shared], places[:shared] = base.descriptors[:shared], base.keypoints[:shared, :2] * 0.9 + 20
    sides = 16 * 2.0 ** rng.integers(-1, 3, count)
    return Features.from_descriptors(descriptors, np.column_stack([places, sides]), image_size=(600, 500))


@pytest.fixture
def collection():
    """Name → features of both kinds; `query` shares 12, 8 and 5 features with b, a and c, d has none."""
    rng = np.random.default_rng(0)
    query = local_features(rng, 12)
    parts = {name: local_features(rng, 12, query.strongest(shared)) for name, shared in (("b", 12), ("a", 8), ("c", 5))}
    parts |= {"query": query, "d": query.strongest(0)}
    wholes = {name: Features.from_descriptors(rng.normal(size=(1, 6))) for name in parts}
    return {name: FusedFeatures((wholes[name], parts[name])) for name in parts}


def described(collection):
    def describe(name, box):
        if name not in collection:
            raise NotFoundError(f"{name}: gone")
        return collection[name]

    return PairImages(describe, describe)


KINDS = Kinds(local=1, whole=0)


def test_kinds_are_the_first_of_each_sort():
    fused = SimpleNamespace(kinds=[SimpleNamespace(recipe=one) for one in (WHOLE, LOCAL, WHOLE, LOCAL)])
    assert Kinds.of_encoder(fused, None) == Kinds(1, 0)
    assert Kinds.of_encoder(object(), LOCAL) == Kinds(0, None)
    assert Kinds.of_encoder(object(), WHOLE) == Kinds(None, 0)


def test_inliers_decide_and_equal_ones_keep_their_order(collection):
    options = AffineRansac(trials=200, distance=0.1)
    scorer = AffineRansacScorer(described(collection), KINDS, options, threads=1)
    found = scorer.scores("query", None, ["a", "b", "c", "d"])
    assert found.tolist() == [8, 12, 5, 0]
    assert found[0] == ransac_match(collection["query"].parts[1], collection["a"].parts[1], options).inliers
    hits = [Hit(name, score) for name, score in zip("dcabe", (0.9, 0.8, 0.7, 0.6, 0.5), strict=True)]
    ranked = PairReranker(scorer, by_inliers(3)).rerank("query", None, hits)
    assert [hit.name for hit in ranked] == ["a", "c", "d", "b", "e"]
    with pytest.warns(AsmkWarning, match="e: is not compared: e: gone"):
        ranked = PairReranker(scorer, by_inliers()).rerank("query", None, hits)
    assert [hit.name for hit in ranked] == ["b", "a", "c", "d", "e"]


def test_features_of_one_kind_are_verified_too(collection):
    alone = {name: found.parts[1] for name, found in collection.items()}
    scorer = AffineRansacScorer(described(alone), Kinds(0, None), AffineRansac(trials=200, distance=0.1), threads=1)
    assert scorer.scores("query", None, ["b", "d"]).tolist() == [12, 0]


def test_global_descriptors_alone_are_not_verified():
    with pytest.raises(InputError, match="no local features"):
        AffineRansacScorer(described({}), Kinds(None, 0))


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    save_transformer(tmp_path / "small.safetensors", RerankingTransformer(SMALL), {})
    return PairTransformer(tmp_path / "small.safetensors", "cpu")


def test_logits_are_those_of_pairs_one_by_one(collection, network):
    names = ["a", "b", "c", "d"]
    scorer = TransformerScorer(network, described(collection), KINDS)
    found = scorer.scores("query", None, names)
    tokens = {name: image_tokens(*collection[name].parts, ScaleUnit(), 5) for name in [*names, "query"]}
    assert [len(tokens[name].locals) for name in names] == [5, 5, 5, 0]
    device = torch.device("cpu")
    with torch.no_grad():
        together = network.network(
            token_batch([tokens["query"]], 8, device).repeated(4),
            token_batch([tokens[name] for name in names], 8, device),
        )
    np.testing.assert_allclose(found, together.numpy(), atol=1e-5)
    assert len(set(found.tolist())) == 4


def test_the_logit_alone_decides(collection, network):
    scorer = TransformerScorer(network, described(collection), KINDS)
    names = ["a", "b", "c", "d"]
    hits = [Hit(name, 1 - number / 10) for number, name in enumerate(names)]
    logits = dict(zip(names, scorer.scores("query", None, names), strict=True))
    ranked = PairReranker(scorer, by_logits()).rerank("query", None, hits)
    assert [hit.name for hit in ranked] == sorted(names, key=lambda name: -logits[name])


def test_an_image_that_is_gone_has_the_least_logit_of_the_others(collection, network):
    scorer = TransformerScorer(network, described(collection), KINDS)
    with pytest.warns(AsmkWarning, match="gone"):
        found = scorer.scores("query", None, ["a", "lost", "b"])
    assert found[1] == min(found[0], found[2])
    with pytest.warns(AsmkWarning, match="gone"):
        assert scorer.scores("query", None, ["lost"]).tolist() == [0.0]
    assert len(scorer.scores("query", None, [])) == 0
    with pytest.raises(NotFoundError):
        scorer.scores("lost", None, ["a"])


def test_an_image_without_a_global_descriptor_is_not_compared(collection, network):
    collection["a"] = FusedFeatures((None, collection["a"].parts[1]))
    scorer = TransformerScorer(network, described(collection), KINDS)
    with pytest.warns(AsmkWarning, match="no global descriptor"):
        scorer.scores("query", None, ["a", "b"])


@pytest.mark.parametrize("kinds, lacks", [(Kinds(0, None), "global descriptors"), (Kinds(None, 0), "local features")])
def test_a_transformer_needs_both_kinds(network, kinds, lacks):
    with pytest.raises(InputError, match=f"no {lacks}; rrt needs both"):
        TransformerScorer(network, described({}), kinds)


def test_descriptors_of_another_extractor_are_refused(collection, network):
    tokens = image_tokens(Features.from_descriptors(np.ones((1, 7))), None, ScaleUnit(), 5)
    with pytest.raises(MismatchError, match="7 and 8 dimensions, the network expects 6 and 8"):
        pair_logits(network.network, tokens, [tokens])


def test_tokens_are_the_strongest_features_and_their_scales():
    local = Features.from_descriptors(
        np.eye(3), np.array([[0, 0, 32.0], [0, 0, 8], [0, 0, 45]]), np.array([0.5, 0.9, 0.7]), image_size=(2048, 100)
    )
    whole = Features.from_descriptors(np.ones((1, 6)))
    found = image_tokens(whole, local, ScaleUnit(16.0, 1024), 2)
    np.testing.assert_array_equal(found.locals, np.eye(3)[[1, 2]])
    assert found.scales.tolist() == [0, 2]  # 8 / 32 is below the first scale; 45 / 32 counts as 1, as in the code
    with pytest.raises(InputError, match="3 global descriptors"):
        image_tokens(local, local, ScaleUnit(), 2)


def test_missing_scores_are_the_least_of_the_others():
    assert filled([1.0, None, -2.0]).tolist() == [1.0, -2.0, -2.0]
    assert filled([None]).tolist() == [0.0]
    assert len(filled([])) == 0


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """An index of local and global features, those recorded in it, and a ground truth of three queries."""
    folder = tmp_path_factory.mktemp("indexed")
    index = fused_histories.create(folder / "two.index")
    index.add(fused_histories.write_sets(folder / "sets", fused_histories.POOL))
    names = fused_histories.NAMES
    queries = [
        GroundTruthQuery(names[place], None, frozenset(names[5:8]), frozenset(names[10:12]), frozenset(), True)
        for place in (0, 1, 3)
    ]
    return index, GroundTruth(tuple(names), tuple(queries))


def evaluated(index, truth, reranker):
    source = query_source(index)
    found = {}

    def keep(rankings):
        found.update({name: [hit.name for hit in hits] for name, hits in rankings})

    searcher = FusedSearcher(index, threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AsmkWarning)  # of images without a global descriptor
        evaluate_reranked(
            truth, searcher, lambda query: source.ground_truth_features(query.name, query.box),
            reranker=reranker, keep=keep,
        )  # fmt: skip
    return found, source, searcher


def test_gv_ranks_an_index_by_inliers_and_the_search(indexed):
    index, truth = indexed
    source = query_source(index)
    reranker = feature_reranker("gv", source, 6, None, source.ground_truth_features, threads=1)
    found, source, searcher = evaluated(index, truth, reranker)
    for query in truth.queries[:2]:
        before = [hit.name for hit in searcher.search(source.named(query.name), None)]
        junk = {query.name}
        kept = [name for name in before if name not in junk][:6]
        local = {name: source.named(name).parts[0] for name in [*kept, query.name]}
        inliers = {
            name: 0 if local[name] is None or local[query.name] is None
            else ransac_match(local[query.name], local[name]).inliers
            for name in kept
        }  # fmt: skip
        expected = sorted(kept, key=lambda name: -inliers[name])
        assert [name for name in found[query.name] if name not in junk][:6] == expected


def test_rrt_ranks_an_index_of_both_kinds(indexed, tmp_path):
    index, truth = indexed
    options = TransformerOptions(fused_histories.SIDE, fused_histories.DIM, layers=1, heads=2, hidden=8)
    save_transformer(tmp_path / "rrt.safetensors", RerankingTransformer(options), {})
    source = query_source(index)
    reranker = feature_reranker("rrt", source, 6, tmp_path / "rrt.safetensors", source.ground_truth_features)
    assert reranker.scorer.unit == ScaleUnit()  # the features are of no extractor
    found, _, searcher = evaluated(index, truth, reranker)
    before = {name: [hit.name for hit in searcher.search(source.named(name), None)] for name in found}
    assert {name: sorted(ranking) for name, ranking in found.items()} == {
        name: sorted(ranking) for name, ranking in before.items()
    }
    changed = [name for name in found if found[name] != before[name]]
    has_both = [name for name in found if None not in source.named(name).parts]
    assert 0 < len(has_both) < len(found)
    assert set(changed) <= set(has_both)
    assert changed


def test_rerankers_are_made_of_what_they_need(indexed, tmp_path):
    source = query_source(indexed[0])
    for name, weights, message in (
        ("gv", tmp_path / "w", "gv needs no weights"),
        ("rrt", None, "rrt needs the weights"),
        ("sp", None, "choose one of gv, rrt"),
    ):
        with pytest.raises(InputError, match=message):
            feature_reranker(name, source, 6, weights, source.ground_truth_features)


def test_the_unit_of_scales_is_that_of_the_network():
    network = SimpleNamespace(backbone=SimpleNamespace(stride=8))
    assert unit_of(SimpleNamespace(network=network, max_side=640)) == ScaleUnit(8.0, 640)
    assert unit_of(SimpleNamespace(max_side=640)) == ScaleUnit(16.0, 640)
    assert unit_of(object()) == ScaleUnit()
