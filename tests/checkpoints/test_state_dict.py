"""Tensors in memory, whatever their dtype, strides and ties."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import all_bytes, as_bytes, bytes_of, every_dtype, noise, small, tensor
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from planaria.checkpoints import StateDict, open_checkpoint, parse_header, write_state_dict
from planaria.checkpoints.state_dict import DTYPES
from planaria.errors import InvalidInput, OtherModel, OutputFailed

dtypes = st.sampled_from([dtype for dtype in DTYPES if dtype != torch.float4_e2m1fn_x2])


def test_bytes_and_entries_are_those_of_a_file_for_every_dtype(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_state_dict(path, every_dtype())
    with open_checkpoint(every_dtype()) as memory, open_checkpoint(path) as file:
        assert all_bytes(memory) == all_bytes(file) == as_bytes(every_dtype())
        assert memory.entries == file.entries
        assert list(memory.entries) == list(every_dtype())


def test_the_made_up_header_is_that_of_a_file_of_the_tensors_one_after_the_other(tmp_path: Path) -> None:
    with open_checkpoint(every_dtype()) as memory:
        ((name, header),) = memory.headers.items()
        content = header + b"".join(all_bytes(memory).values())
        assert name == ""
        assert parse_header(content).entries == tuple(memory.entries.values())
    (tmp_path / "model.safetensors").write_bytes(content)
    with open_checkpoint(tmp_path) as file:
        assert all_bytes(file) == as_bytes(every_dtype())


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "whole": lambda base: base,
    "transposed": lambda base: base.transpose(0, 2),
    "channels last": lambda base: base.permute(2, 0, 1),
    "every other": lambda base: base[:, :, ::2],
    "a column": lambda base: base[:, 1, 2],
    "one of a column": lambda base: base[:1, 1, 2],
    "columns": lambda base: base[:, :, 1:3],
    "one row of columns": lambda base: base[:1, :, 1:3],
    "rows of one": lambda base: base[:, :1, :].transpose(0, 1),
    "one number": lambda base: base[1, 1, 1],
    "nothing": lambda base: base[:, 3:, ::2],
}


@pytest.mark.parametrize("view", VIEWS)
@given(dtype=dtypes, ends=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_pieces_of_any_view_are_read_and_written_in_place_and_nothing_else_is(
    view: str, dtype: torch.dtype, ends: list[float]
) -> None:
    base = tensor(dtype, 4, 3, 6)
    weight = VIEWS[view](base)
    # Where in memory the view's bytes are.
    numbers = VIEWS[view](torch.arange(base.numel()).view(base.shape)).reshape(-1, 1)
    places = (numbers * dtype.itemsize + torch.arange(dtype.itemsize)).view(-1)
    memory = base.view(torch.uint8).view(-1)
    start, stop = (int(end * len(places)) for end in ends)
    content = noise(stop - start, seed=7)
    with open_checkpoint({"weight": weight}, writable=True) as checkpoint:
        assert checkpoint.entries["weight"].nbytes == len(places)
        assert np.array_equal(checkpoint.read("weight", start, stop), memory[places[start:stop]].numpy())
        expected = memory.clone()
        expected[places[start:stop]] = content
        checkpoint.write("weight", start, content.numpy())
        assert torch.equal(memory, expected)


def test_a_piece_is_the_callers_own() -> None:
    weight = torch.ones(5)
    with open_checkpoint({"weight": weight}) as checkpoint:
        checkpoint.read("weight")[:] = 0
    assert weight.sum() == 5


def test_a_conjugate_and_a_negative_view_are_read_and_written_as_the_numbers_they_mean() -> None:
    base = torch.tensor([[1 + 2j, 3 - 4j], [5j, -6]], dtype=torch.complex64)
    views = {"conjugate": base.clone().conj(), "negative": base.clone().conj().imag, "turned": base.clone().conj().T}
    views["one negative"] = base[:1, :1].clone().conj().imag
    assert views["conjugate"].is_conj() and views["negative"].is_neg()
    with open_checkpoint(views, writable=True) as checkpoint:
        for name, view in views.items():
            meant = view.resolve_conj().resolve_neg().clone()
            assert np.array_equal(checkpoint.read(name), bytes_of(meant))
            new = bytes_of(meant.flip(0))
            checkpoint.write(name, 3, new[3:])
            checkpoint.write(name, 0, new[:3])
            assert torch.equal(view.resolve_conj().resolve_neg(), meant.flip(0))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.tensor(2.0))


def test_tied_weights_are_one_entry_and_the_other_name_an_alias() -> None:
    with open_checkpoint(Tied()) as checkpoint:
        assert list(checkpoint.entries) == ["scale", "embedding.weight", "head.bias"]
        assert checkpoint.aliases == {"head.weight": "embedding.weight"}


def test_only_the_very_same_numbers_are_tied() -> None:
    base = torch.zeros(4, 4)
    tensors = {
        "base": base,
        "turned": base.T,
        "part": base[:2],
        "flat": base.view(-1),
        "bits": base.view(torch.int32),
        "nothing": torch.zeros(0),
        "nothing too": torch.zeros(0),
    }
    with open_checkpoint(tensors | {"same": base.view(4, 4)}) as checkpoint:
        assert list(checkpoint.entries) == list(tensors)
        assert checkpoint.aliases == {"same": "base"}


@pytest.mark.parametrize(
    "names", [["head.bias", "head.weight", "scale"], ["head.weight", "scale", "embedding.weight", "head.bias"]]
)
def test_a_guard_that_knows_tied_weights_by_any_of_their_names_fits(names: list[str]) -> None:
    state = {name: value.clone() for name, value in Tied().state_dict().items()}
    with open_checkpoint({name: state[name] for name in names}) as apart:
        headers = apart.headers
    with open_checkpoint(Tied(), headers=headers) as checkpoint:
        assert list(checkpoint.entries) == names
        assert checkpoint.entries.keys() | checkpoint.aliases.keys() == state.keys()
        assert set(checkpoint.aliases.values()) <= {"head.weight"}


def test_a_guard_of_files_fits_the_module_in_the_guards_order(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_state_dict(path, small())
    with open_checkpoint(path) as file, open_checkpoint(small(), headers=file.headers) as memory:
        assert list(memory.entries) == list(file.entries) != list(small())
        assert all_bytes(memory) == as_bytes(small())


def test_a_guard_of_other_tensors_is_refused() -> None:
    with open_checkpoint(small()) as checkpoint:
        headers = checkpoint.headers
    for tensors, refusal in [
        (small() | {"buffer": torch.zeros(2)}, "'buffer' is not in the guard"),
        ({"steps": small()["steps"]}, "missing"),
        (small() | {"steps": torch.zeros(1, dtype=torch.int64)}, r"I64 \[1\] and not I64 \[\]"),
        (small() | {"steps": torch.zeros((), dtype=torch.float64)}, r"F64 \[\] and not I64 \[\]"),
        ({}, "3 |missing"),
    ]:
        with pytest.raises(OtherModel, match=refusal):
            open_checkpoint(tensors, headers=headers)


def test_writing_keeps_parameters_and_passes_autograd_by() -> None:
    module = nn.Linear(3, 3)
    weight, version = module.weight, module.weight._version
    loss = module(torch.ones(1, 3)).square().sum()
    with open_checkpoint(module, writable=True) as checkpoint:
        checkpoint.write("weight", 0, np.zeros(36, np.uint8))
    assert module.weight is weight
    assert weight.requires_grad and weight.is_leaf
    assert weight._version == version
    assert not weight.any()
    loss.backward()
    assert weight.grad is not None


@pytest.mark.parametrize("turned", [False, True])
def test_weights_made_in_inference_mode_are_written(turned: bool) -> None:
    with torch.inference_mode():
        weight = torch.ones(3, 4)
        view = weight.T if turned else weight
    with open_checkpoint({"weight": view}, writable=True) as checkpoint:
        checkpoint.write("weight", 0, np.zeros(48, np.uint8))
    assert not weight.any()


def test_an_array_of_any_strides_is_written_as_its_numbers_stand() -> None:
    content = np.arange(32, dtype=np.uint8)[::-2]
    with open_checkpoint({"weight": torch.ones(4)}, writable=True) as checkpoint:
        checkpoint.write("weight", 0, content)
        assert np.array_equal(checkpoint.read("weight"), content)


def test_only_a_writable_one_is_written() -> None:
    with open_checkpoint(small()) as checkpoint, pytest.raises(InvalidInput, match="writable=True"):
        checkpoint.write("steps", 0, np.zeros(1, np.uint8))


def test_there_are_no_headers_to_mend_in_memory() -> None:
    with open_checkpoint(small(), writable=True) as checkpoint:
        checkpoint.write_headers()
        assert (checkpoint.header_damaged, checkpoint.truncated()) == (False, {})
        assert all_bytes(checkpoint) == as_bytes(small())


class Wrapped(Tensor):
    pass


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        (torch.zeros(2, device="meta"), "meta"),
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.zeros(2, dtype=torch.complex128), "complex128"),
        (torch.zeros(1).expand(3), "expanded"),
        (torch.zeros(2).as_subclass(Wrapped), "Wrapped"),
        (torch.zeros(1, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)[0], "4-bit"),
        (nn.UninitializedParameter(), "UninitializedParameter"),
        ({"a": 1}, "dict"),
        (3, "int"),
    ],
)
def test_what_has_no_plain_bytes_is_refused_by_name(value: Tensor, refusal: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"'weight'.*{refusal}"):
        StateDict({"weight": value})
    with pytest.raises(InvalidInput, match=f"'weight'.*{refusal}"):
        write_state_dict(tmp_path / "model.pt", {"weight": value})
    assert list(tmp_path.iterdir()) == []


def test_the_name_that_the_format_keeps_for_itself_is_refused() -> None:
    with pytest.raises(InvalidInput, match="__metadata__"):
        StateDict({"__metadata__": torch.zeros(1)})


def test_extra_state_that_is_no_tensor_is_refused() -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

    with pytest.raises(InvalidInput, match="'_extra_state' is a dict"):
        open_checkpoint(Extra(2, 2))


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth", ".bin"])
def test_a_written_model_opens_with_the_same_bytes(ending: str, tmp_path: Path) -> None:
    base = tensor(torch.float32, 4, 6)
    tensors = Tied().state_dict() | {"turned": base.T, "part": base[1:3], "base": base}
    tensors |= {"conjugate": torch.tensor([1 + 2j], dtype=torch.complex64).conj()}
    path = tmp_path / f"model{ending}"
    write_state_dict(path, tensors)
    assert list(tmp_path.iterdir()) == [path]
    with open_checkpoint(path) as checkpoint:
        found = all_bytes(checkpoint)
        found |= {name: found[kept] for name, kept in checkpoint.aliases.items()}
        assert found == as_bytes({name: value.resolve_conj() for name, value in tensors.items()})
        assert len(checkpoint.aliases) == (ending != ".safetensors")


def test_a_written_safetensors_file_loads_into_the_module(tmp_path: Path) -> None:
    one, other = Tied(), Tied()
    write_state_dict(tmp_path / "model.safetensors", one.state_dict())
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert as_bytes(one.state_dict()) == as_bytes(other.state_dict())


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_model_that_cannot_be_written_leaves_the_old_file(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"old")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputFailed, match="Cannot write"):
        write_state_dict(tmp_path / "nowhere" / path.name, small())
    monkeypatch.setattr("planaria.checkpoints.state_dict.os.replace", fail)
    with pytest.raises(OutputFailed, match="No space left"):
        write_state_dict(path, small())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_another_file_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"model\.onnx"):
        write_state_dict(tmp_path / "model.onnx", small())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("turned", [False, True])
def test_weights_on_a_gpu_are_read_and_written_there(turned: bool) -> None:
    base = tensor(torch.bfloat16, 6, 5).cuda()
    weight = base.T if turned else base
    with open_checkpoint({"weight": weight}, writable=True) as checkpoint:
        assert np.array_equal(checkpoint.read("weight", 3, 21), bytes_of(weight.cpu())[3:21])
        expected = bytes_of(weight.cpu()).copy()
        expected[3:21] = noise(18, seed=3).numpy()
        checkpoint.write("weight", 3, expected[3:21])
        assert np.array_equal(bytes_of(weight.cpu()), expected)
        assert weight.is_cuda and weight.data_ptr() == base.data_ptr()
