"""The files of a checkpoint: what is written is read again, and bytes that are none are refused in a sentence."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm.finetune.checkpoint import local_state, retention, tensor_file
from michelangelo.llm.finetune.checkpoint import manifest as manifests
from michelangelo.llm.finetune.checkpoint.manifest import Chunk, Manifest, TensorEntry
from michelangelo.llm.finetune.checkpoint.storage import Written

pytestmark = pytest.mark.usefixtures("_one_thread")

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool]
SHAPES = st.lists(st.integers(0, 4), max_size=3)
LOSSES = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    names = draw(st.lists(st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"), unique=True))
    return {
        name: torch.randint(0, 2, tuple(draw(SHAPES))).to(draw(st.sampled_from(DTYPES)))
        for name in names
        if not any("\ud800" <= letter <= "\udfff" for letter in name)
    }


@given(tensors())
def test_tensor_files_are_those_of_the_library(given_tensors: dict[str, torch.Tensor]) -> None:
    data = b"".join(tensor_file.pieces(given_tensors))
    ours = tensor_file.read_header(io.BytesIO(data))
    theirs = safetensors.torch.load(data)
    assert ours.keys() == theirs.keys() == given_tensors.keys()
    for name, tensor in given_tensors.items():
        read = tensor_file.read_tensor(io.BytesIO(data), ours[name])
        assert read.dtype == theirs[name].dtype == tensor.dtype
        assert torch.equal(read, tensor)
        assert torch.equal(theirs[name], tensor)
    assert tensor_file.read_header(io.BytesIO(safetensors.torch.save(given_tensors))).keys() == ours.keys()


HEADER = st.recursive(
    st.none() | st.integers() | st.text(max_size=4) | st.sampled_from(["F32", "BF16"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "dtype", "shape", "data_offsets"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.binary(max_size=200) | HEADER.map(lambda header: json.dumps(header).encode()), st.booleans())
def test_bytes_that_are_no_tensor_file_are_refused(data: bytes, has_length: bool) -> None:
    file = io.BytesIO(len(data).to_bytes(8, "little") + data if has_length else data)
    with contextlib.suppress(tensor_file.TensorFileError):
        read_all(file)


@given(tensors().filter(lambda made: any(tensor.numel() for tensor in made.values())), st.data())
def test_tensor_files_that_end_too_early_are_refused(made: dict[str, torch.Tensor], data: st.DataObject) -> None:
    whole = b"".join(tensor_file.pieces(made))
    torn = io.BytesIO(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(tensor_file.TensorFileError):
        read_all(torn)


def read_all(file: io.BytesIO) -> None:
    for place in tensor_file.read_header(file).values():
        tensor_file.read_tensor(file, place)


def make(number: int = 1, loss: float | None = None, **shared: Any) -> Manifest:
    return Manifest(
        step=10 * number,
        number=number,
        world_size=2,
        validation_loss=loss,
        shared=shared,
        files={"tensors-00000.safetensors": Written(3, "ab")},
        tensors={
            "model.a": TensorEntry("bfloat16", (4, 2), (Chunk("tensors-00000.safetensors", "a", (0, 0), (4, 2)),))
        },
    )


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), max_size=3))
def test_manifests_come_back(shared: dict[str, Any]) -> None:
    assert manifests.decode(manifests.encode(make(more=shared))) == make(more=shared)


@given(st.data())
def test_changed_manifests_are_refused(data: st.DataObject) -> None:
    whole = bytearray(manifests.encode(make(loss=1.5, a=[1, 2])))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(errors.CheckpointError):
        manifests.decode(bytes(whole))


@given(st.binary(max_size=60))
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(errors.CheckpointError):
        manifests.decode(data)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", ".hidden"])
def test_manifests_name_no_files_elsewhere(name: str) -> None:
    made = Manifest(1, 1, 1, None, {}, {name: Written(1, "a")}, {})
    with pytest.raises(errors.CheckpointError, match="outside of its folder"):
        manifests.decode(manifests.encode(made))


@given(tensors())
def test_state_of_a_process_comes_back(made: dict[str, torch.Tensor]) -> None:
    state = {"tensors": made, "more": [1, 2.5, None, {"a": "b"}]}
    found = local_state.decode(local_state.encode(state))
    assert found["more"] == state["more"]
    for name, tensor in made.items():
        assert found["tensors"][name].dtype == tensor.dtype
        assert torch.equal(found["tensors"][name], tensor)


@given(st.lists(LOSSES, min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 4))
def test_the_newest_and_the_best_are_never_superfluous(
    losses: list[float | None], keep_last: int, keep_best: int
) -> None:
    made = [make(number, loss) for number, loss in enumerate(losses, start=1)]
    gone = {found.number for found in retention.superfluous(made, keep_last=keep_last, keep_best=keep_best)}
    kept = {found.number for found in made} - gone
    assert set(range(len(made), max(0, len(made) - keep_last), -1)) <= kept
    assert len(kept) <= keep_last + keep_best
    finite = [loss for loss in losses if loss is not None and abs(loss) < float("inf")]
    if keep_best and finite:
        assert 1 + losses.index(min(finite)) in kept
