"""Models: tensors and state dicts, estimators, boosters; and images."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.errors import CodecError
from michelangelo.uniflow import codecs
from michelangelo.uniflow.ref import Ref

X = np.random.default_rng(0).random((60, 4))
Y = (X[:, 0] > 0.5).astype(int)


@pytest.fixture
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


def round_trip(value: Any, blobs: MemoryBlobStore) -> Any:
    """The value after a journey, which is encoded as the value was."""
    tree = codecs.encode(value, blobs)
    found = codecs.decode(tree, blobs)
    assert codecs.encode(found, blobs) == tree
    return found


TENSORS = {
    "scalar": torch.tensor(3),
    "empty": torch.empty(0, 3),
    "bfloat16": torch.arange(3).to(torch.bfloat16),
    "float8": torch.arange(3).to(torch.float8_e4m3fn),
    "bool": torch.tensor([True, False]),
    "complex64": torch.tensor([1 + 2j]),
    "complex128": torch.tensor([1 + 2j], dtype=torch.complex128).conj(),
    "transposed": torch.arange(12).reshape(3, 4).T,
    "strided": torch.arange(10)[::3],
    "expanded": torch.ones(1, 3).expand(4, 3),
    "with-grad": torch.ones(2, requires_grad=True),
    "computed": torch.ones(2, requires_grad=True) * 2,
    "parameter": torch.nn.Parameter(torch.ones(2), requires_grad=False),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_tensors_round_trip(blobs: MemoryBlobStore, tensor: torch.Tensor) -> None:
    found = round_trip(tensor, blobs)
    assert (type(found), found.dtype, found.shape) == (type(tensor), tensor.dtype, tensor.shape)
    assert found.requires_grad == tensor.requires_grad
    if tensor.dtype == torch.float8_e4m3fn:
        found, tensor = found.float(), tensor.float()
    assert torch.equal(found, tensor)


@settings(deadline=None, max_examples=40)
@given(
    array=arrays.arrays(
        dtype=st.sampled_from(["u1", "i2", "i8", "f4", "f8", "c16", "?"]),
        shape=arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_tensors_of_any_array_round_trip(array: np.ndarray[Any, Any]) -> None:
    tensor = torch.from_numpy(np.array(array))
    found = round_trip({"k": [tensor, tensor]}, MemoryBlobStore())["k"][0]
    assert found.numpy().tobytes() == array.tobytes()


def test_state_dict_is_one_blob_and_keeps_its_type(blobs: MemoryBlobStore) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    found = round_trip(model.state_dict(), blobs)
    assert type(found) is collections.OrderedDict
    torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).load_state_dict(found)
    assert len(list(blobs.iterate())) == 1


def test_optimizer_state_goes_with_its_scalars(blobs: MemoryBlobStore) -> None:
    layer = torch.nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.5)
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    found = round_trip({"epoch": 3, "optimizer": optimizer.state_dict()}, blobs)
    other = torch.optim.AdamW(layer.parameters())
    other.load_state_dict(found["optimizer"])
    assert other.state_dict()["param_groups"][0]["lr"] == 0.5


def test_tied_weights_stay_tied_and_equal_ones_stay_apart(blobs: MemoryBlobStore) -> None:
    weight = torch.ones(2)
    found = round_trip({"embed": weight, "head": weight, "other": torch.ones(2)}, blobs)
    found["embed"][0] = 5
    assert found["head"].tolist() == [5, 1]
    assert found["other"].tolist() == [1, 1]


def test_who_writes_into_a_tensor_does_not_write_into_the_store(blobs: MemoryBlobStore) -> None:
    tree = codecs.encode(torch.ones(1000), blobs)
    codecs.decode(tree, blobs).zero_()
    assert codecs.decode(tree, blobs).sum() == 1000


def test_tensors_are_references_in_workflow_code(blobs: MemoryBlobStore) -> None:
    tree = codecs.encode({"w": torch.ones(2, 3), "b": torch.zeros(3)}, blobs)
    found = codecs.decode(tree, blobs, data=False)
    assert isinstance(found["w"], Ref)
    assert found["w"].metadata == {"shape": [2, 3], "dtype": "float32"}
    assert torch.equal(found["b"].load(), torch.zeros(3))
    assert codecs.encode(found, blobs) == tree


def test_large_state_dicts_are_several_blobs(blobs: MemoryBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("michelangelo.uniflow.codecs.tensors._SHARD_BYTES", 1000)
    state = {str(number): torch.full((100,), float(number)) for number in range(10)}
    found = round_trip({**state, "tied": state["0"]}, blobs)
    assert len(list(blobs.iterate())) == 4
    assert found["tied"] is found["0"]
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_torch_values_round_trip(blobs: MemoryBlobStore) -> None:
    value = (torch.float16, torch.device("cuda", 1), torch.Size([2, 3]))
    assert codecs.decode(codecs.encode(value, blobs), blobs, data=False) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.nn.Linear(1, 1), r"return model\.state_dict\(\)"),
        (torch.optim.SGD([torch.ones(1)]), r"return optimizer\.state_dict\(\)"),
        (torch.eye(2).to_sparse(), "to_dense"),
        (torch.ones(2, device="meta"), "has no content"),
        (xgboost.DMatrix(X), "make the DMatrix in each task"),
        (FunctionTransformer(lambda x: x), "skops does not restore; ask for pickle"),
        (make_pipeline(xgboost.XGBClassifier()), "XGBClassifier, which skops does not restore"),
    ],
    ids=["module", "optimizer", "sparse", "meta", "dmatrix", "lambda", "foreign-step"],
)
def test_models_that_cannot_be_carried_say_what_to_do(blobs: MemoryBlobStore, value: Any, message: str) -> None:
    with pytest.raises(CodecError, match=rf"value\['k'\]\[1\].*{message}"):
        codecs.encode({"k": [torch.ones(5), value]}, blobs)
    assert list(blobs.iterate()) == []


ESTIMATORS = {
    "pipeline": make_pipeline(StandardScaler(), RandomForestClassifier(3, random_state=0)).fit(X, Y),
    "linear": LogisticRegression().fit(X, Y),
}


@pytest.mark.parametrize("model", ESTIMATORS.values(), ids=ESTIMATORS)
def test_estimators_predict_the_same(blobs: MemoryBlobStore, model: Any) -> None:
    found = round_trip(model, blobs)
    assert np.array_equal(found.predict_proba(X), model.predict_proba(X))


def test_estimators_that_were_not_fitted_round_trip(blobs: MemoryBlobStore) -> None:
    assert round_trip(LogisticRegression(C=0.25), blobs).C == 0.25


@pytest.mark.parametrize("kind", [xgboost.XGBClassifier, xgboost.XGBRegressor])
def test_boosted_models_predict_the_same(blobs: MemoryBlobStore, kind: Any) -> None:
    model = kind(n_estimators=3, max_depth=2, n_jobs=1, random_state=4).fit(X, Y)
    found = round_trip(model, blobs)
    assert np.array_equal(found.predict(X), model.predict(X))
    assert found.get_params()["max_depth"] == 2
    booster = round_trip(model.get_booster(), blobs)
    assert booster.num_boosted_rounds() == 3


def test_boosted_models_that_were_not_fitted_round_trip(blobs: MemoryBlobStore) -> None:
    assert round_trip(xgboost.XGBRegressor(n_estimators=7), blobs).get_params()["n_estimators"] == 7


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I", "F", "CMYK", "YCbCr", "I;16", "HSV", "LAB"])
def test_images_keep_every_pixel(blobs: MemoryBlobStore, mode: str) -> None:
    noise = PIL.Image.effect_noise((7, 5), 30)
    image = PIL.Image.new(mode, (7, 5), 40) if mode in ("LAB", "I;16") else noise.convert(mode)
    found = round_trip(image, blobs)
    assert (found.mode, found.size, found.tobytes()) == (image.mode, image.size, image.tobytes())


def test_animations_are_refused(blobs: MemoryBlobStore, tmp_path: Any) -> None:
    frames = [PIL.Image.new("L", (2, 2), shade) for shade in (0, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with PIL.Image.open(tmp_path / "a.gif") as image, pytest.raises(CodecError, match="several frames"):
        codecs.encode(image, blobs)


SCRIPT = """
import numpy as np, torch, PIL.Image, polars as pl, xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.uniflow import codecs
torch.manual_seed(0)
X = np.random.default_rng(0).random((60, 4)); Y = (X[:, 0] > 0.5).astype(int)
values = [torch.nn.Linear(3, 4).state_dict(), RandomForestClassifier(3, random_state=0).fit(X, Y),
          LogisticRegression().fit(X, Y), xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(X, Y),
          PIL.Image.new("RGB", (4, 4), (1, 2, 3)), pl.DataFrame({"a": [1, None], "b": ["x", "y"]})]
digest = codecs.digest(codecs.encode(values, MemoryBlobStore()))
"""


@pytest.mark.slow
def test_digests_of_models_are_the_same_in_every_process() -> None:
    other = subprocess.run(
        [sys.executable, "-c", SCRIPT + "print(digest)"],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    here: dict[str, Any] = {}
    exec(SCRIPT, here)
    assert other.stdout.strip() == here["digest"]
