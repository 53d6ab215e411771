"""Damages of whole models, and their faults on disk and on other copies."""

import math
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from helpers import drawn, same_bits
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from weights import DTYPES, FLOATS, bits_of, bytes_of, full_weight, random_weight, shapes

from planaria.damages import BitFlip, Damage, Erasure, ModelFaults, Run, WholeWeight
from planaria.errors import InvalidFile, InvalidInput, OutputFailed
from planaria.streams import generator

JOINT = [BitFlip(0.05), BitFlip(count=3), WholeWeight(0.3), WholeWeight(count=2), Run(20), Run(20, fill="zero")]
DAMAGES = [*JOINT, Erasure(0.4, value=1.0)]
MODEL = {
    "embedding": random_weight(torch.bfloat16, 6, 5),
    "empty": torch.zeros(0, 3),
    "scale": random_weight(torch.float32),
    "mask": random_weight(torch.bool, 7),
    "codes": random_weight(torch.uint16, 4, 2),
    "steps": torch.tensor(12),
}
FLOAT_MODEL = {str(dtype): random_weight(dtype, 3, 4) for dtype in FLOATS}

models = st.lists(st.tuples(st.sampled_from(DTYPES), shapes), max_size=5).map(
    lambda parts: {f"part {number}": random_weight(dtype, *shape) for number, (dtype, shape) in enumerate(parts)}
)


def same_faults(one: ModelFaults, other: ModelFaults) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        faults.shape == other.tensors[name].shape
        and torch.equal(faults.index, other.tensors[name].index)
        and same_bits(faults.old, other.tensors[name].old)
        and same_bits(faults.new, other.tensors[name].new)
        for name, faults in one.tensors.items()
    )


@pytest.mark.parametrize("damage", [BitFlip(0.1), WholeWeight(0.3), Run(20)], ids=repr)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (6, 5), (2, 3, 4)])
def test_faults_replay_and_undo_bit_for_bit(damage: Damage, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    weight = random_weight(dtype, *shape)
    if len(shape) == 3:
        weight = weight.transpose(0, 2)
    before = weight.clone()
    damaged, faults = damage.apply(weight, generator(0, "damage"))
    assert same_bits(weight, before)
    assert same_bits(faults.replay(weight), damaged)
    assert same_bits(faults.undo(damaged), before)
    assert same_bits(damaged[faults.known], before[faults.known])
    assert (bits_of(faults.old) != bits_of(faults.new)).any(1).all()


@pytest.mark.parametrize("damage", JOINT, ids=repr)
def test_one_tensor_breaks_alone_as_it_does_as_a_model(damage: Damage) -> None:
    weight = random_weight(torch.float16, 9, 9)
    alone = ModelFaults({"only": damage.apply(weight, generator(3, "damage"))[1]})
    assert same_faults(alone, damage.apply_to_model({"only": weight}, generator(3, "damage")))


@given(model=models, seed=st.integers(0, 99), share=st.floats(0, 1))
def test_a_count_is_over_all_tensors_together(model: dict[str, Tensor], seed: int, share: float) -> None:
    weights = sum(weight.numel() for weight in model.values())
    count = int(share * weights)
    for damage in (BitFlip(count=count), WholeWeight(count=count)):
        faults = damage.apply_to_model(model, generator(seed, "damage"))
        damaged = faults.replay(model)
        flipped = [bits_of(damaged[name]) ^ bits_of(model[name]) for name in model]
        broken = sum(int(flips.sum() if isinstance(damage, BitFlip) else flips.any(1).sum()) for flips in flipped)
        assert broken == count
        with pytest.raises(InvalidInput, match="cannot break where there are"):
            type(damage)(count=count + 64 * weights + 1).apply_to_model(model, generator(seed, "damage"))


def test_a_count_is_split_as_drawing_without_replacement_splits_it() -> None:
    model = {"small": torch.zeros(10, dtype=torch.uint8), "large": torch.zeros(15, dtype=torch.int16)}
    for damage, share, places in ((WholeWeight(count=8), 10 / 25, 25), (BitFlip(count=8), 80 / 320, 320)):
        counts = []
        for seed in range(200):
            damaged = damage.apply_to_model(model, generator(seed, "damage")).replay(model)
            flips = bits_of(damaged["small"])
            counts.append(int(flips.sum() if isinstance(damage, BitFlip) else flips.any(1).sum()))
        mean, variance = 8 * share, 8 * share * (1 - share) * (places - 8) / (places - 1)
        measured = torch.tensor(counts).double()
        assert abs(measured.mean() - mean) < 5 * math.sqrt(variance / 200)
        assert abs(measured.var() - variance) < 5 * variance * math.sqrt(2 / 200)


def test_a_rate_acts_on_each_tensor_independently_of_the_others() -> None:
    model = {"small": torch.zeros(40), "large": torch.zeros(60)}
    counts = torch.tensor(
        [
            [len(faults.index) for faults in drawn_faults.tensors.values()]
            for drawn_faults in (
                WholeWeight(0.3).apply_to_model(model, generator(seed, "damage")) for seed in range(300)
            )
        ]
    ).double()
    variances = torch.tensor([40, 60]) * 0.3 * 0.7
    assert ((counts.mean(0) - torch.tensor([12, 18])).abs() < 5 * (variances / 300).sqrt()).all()
    assert ((counts.var(0) - variances).abs() < 5 * variances * math.sqrt(2 / 300)).all()
    assert torch.corrcoef(counts.T)[0, 1].abs() < 5 / math.sqrt(300)


@given(model=models, length=st.integers(1, 400), seed=st.integers(0, 99))
def test_a_run_crosses_from_one_tensor_into_the_next(model: dict[str, Tensor], length: int, seed: int) -> None:
    model = {name: full_weight(weight.dtype, *weight.shape) for name, weight in model.items()}
    damaged = Run(length, fill="zero").apply_to_model(model, generator(seed, "damage")).replay(model)
    content = torch.cat([torch.zeros(0, dtype=torch.uint8), *map(bytes_of, damaged.values())])
    lost = (content == 0).nonzero().flatten()
    assert len(lost) == min(length, len(content))
    assert (lost.diff() == 1).all()


def test_a_run_lies_anywhere_in_the_model() -> None:
    model = {"first": torch.ones(6, dtype=torch.uint8), "second": torch.ones(6, dtype=torch.uint8)}
    places = set()
    for seed in range(200):
        known = Run(3, fill="zero").apply_to_model(model, generator(seed, "damage")).known
        places.add(int((~torch.cat(list(known.values()))).int().argmax()))
    assert places == set(range(10))


def test_erasure_takes_each_tensor_by_itself_in_order() -> None:
    model = {"one": drawn(4, 5), "other": drawn(30)}
    source = generator(0, "damage")
    separate = ModelFaults({name: Erasure(0.3).apply(weight, source)[1] for name, weight in model.items()})
    assert same_faults(separate, Erasure(0.3).apply_to_model(model, generator(0, "damage")))


@pytest.mark.parametrize("damage", DAMAGES, ids=repr)
def test_every_tensor_is_listed_and_comes_back(damage: Damage) -> None:
    before = {name: weight.clone() for name, weight in MODEL.items()}
    faults = damage.apply_to_model(MODEL, generator(0, "damage"))
    damaged = faults.replay(MODEL)
    restored = faults.undo(damaged)
    assert list(faults.tensors) == list(damaged) == list(restored) == list(MODEL)
    assert any(not same_bits(damaged[name], before[name]) for name in MODEL)
    for name, known in faults.known.items():
        assert same_bits(MODEL[name], before[name]) and same_bits(restored[name], before[name])
        assert same_bits(damaged[name][known], before[name][known])


@pytest.mark.parametrize("damage", [BitFlip(0.5), WholeWeight(count=0), Run(9), Erasure(0.5)], ids=repr)
def test_a_model_without_tensors_has_no_faults(damage: Damage) -> None:
    assert damage.apply_to_model({}, generator(0, "damage")).tensors == {}


class Lazy(Mapping[str, Tensor]):
    """Loads a tensor each time it is asked for one, and notes how many were in memory at once."""

    def __init__(self) -> None:
        self.alive = self.most = 0

    def __getitem__(self, name: str) -> Tensor:
        weight = torch.full((50,), float(name))
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(weight, self._freed)
        return weight

    def _freed(self) -> None:
        self.alive -= 1

    def __iter__(self) -> Iterator[str]:
        return iter("12345")

    def __len__(self) -> int:
        return 5


@pytest.mark.parametrize("damage", DAMAGES, ids=repr)
def test_tensors_are_loaded_one_at_a_time(damage: Damage, unchecked: None) -> None:
    model = Lazy()
    faults = damage.apply_to_model(model, generator(0, "damage"))
    assert model.most == 1
    assert same_faults(faults, damage.apply_to_model(dict(model), generator(0, "damage")))


def test_bits_that_one_tensor_lacks_are_refused_for_the_model() -> None:
    with pytest.raises(InvalidInput, match=r"torch.bool is no float.*leave such tensors out"):
        BitFlip(0.1, bits="sign").apply_to_model(FLOAT_MODEL | {"mask": MODEL["mask"]}, generator(0, "damage"))
    faults = BitFlip(1.0, bits="sign").apply_to_model(FLOAT_MODEL, generator(0, "damage"))
    assert not any(known.any() for known in faults.known.values())


def test_another_model_is_refused_by_the_name_of_its_tensor() -> None:
    faults = WholeWeight(0.5).apply_to_model(MODEL, generator(0, "damage"))
    for write in (faults.replay, faults.undo):
        with pytest.raises(InvalidInput, match="Only the faults has a tensor 'codes'"):
            write({name: weight for name, weight in MODEL.items() if name != "codes"})
        with pytest.raises(InvalidInput, match="Only the model has a tensor 'more'"):
            write(MODEL | {"more": drawn(3)})
        with pytest.raises(InvalidInput, match=r"Tensor 'codes': .*\(4, 2\).*\(2, 4\)"):
            write(MODEL | {"codes": random_weight(torch.uint16, 2, 4)})
        with pytest.raises(InvalidInput, match=r"Tensor 'steps': .*int64.*float32"):
            write(MODEL | {"steps": torch.tensor(12.0)})


@given(model=models, seed=st.integers(0, 99))
def test_faults_come_back_from_a_file_bit_for_bit(model: dict[str, Tensor], seed: int, tmp_path: Path) -> None:
    faults = WholeWeight(0.3).apply_to_model(model, generator(seed, "damage"))
    path = tmp_path / "model.safetensors"
    faults.save(path)
    assert same_faults(ModelFaults.load(path), faults)
    content = path.read_bytes()
    ModelFaults(dict(reversed(ModelFaults.load(path).tensors.items()))).save(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_faults_of_every_dtype_come_back_from_a_file(dtype: torch.dtype, tmp_path: Path) -> None:
    weight = random_weight(dtype, 8, 8)
    faults = BitFlip(0.2).apply_to_model({"only": weight}, generator(0, "damage"))
    faults.save(tmp_path / "model.safetensors")
    loaded = ModelFaults.load(tmp_path / "model.safetensors")
    assert same_faults(loaded, faults)
    assert same_bits(loaded.undo(faults.replay({"only": weight}))["only"], weight)


def test_any_text_is_a_name(tmp_path: Path) -> None:
    names = [
        "",
        "/",
        "../../etc/passwd",
        "__metadata__",
        "index/a",
        "shape/a",
        "a",
        "a.b",
        "né\u2028\x00\U0001f9a0",
        "x" * 999,
    ]
    faults = Erasure(0.5).apply_to_model({name: drawn(4) for name in names}, generator(0, "damage"))
    faults.save(tmp_path / "model.safetensors")
    assert same_faults(ModelFaults.load(tmp_path / "model.safetensors"), faults)


FORMAT = {"format": "planaria model faults 1"}
SOUND = {
    "shape/a": torch.tensor([4, 5]),
    "index/a": torch.tensor([1, 4, 19]),
    "old/a": torch.ones(3),
    "new/a": torch.zeros(3),
}


def written(tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = FORMAT) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata=metadata)
    return path


def test_the_file_that_the_hostile_ones_are_made_from_is_sound(tmp_path: Path) -> None:
    faults = ModelFaults.load(written(tmp_path, SOUND)).tensors["a"]
    assert faults.shape == (4, 5) and torch.equal(faults.index, SOUND["index/a"])


HOSTILE = {
    "descending positions": {"index/a": torch.tensor([4, 1, 19])},
    "a position twice": {"index/a": torch.tensor([1, 1, 19])},
    "int32 positions": {"index/a": torch.tensor([1, 4, 19], dtype=torch.int32)},
    "uint64 positions": {"index/a": torch.tensor([1, 4, 19], dtype=torch.uint64)},
    "positions in two axes": {"index/a": torch.tensor([[1, 4, 19]])},
    "too many new values": {"new/a": torch.ones(4)},
    "values in two axes": {"old/a": torch.ones(3, 1), "new/a": torch.ones(3, 1)},
    "no dimension at all": {"index/a": torch.tensor(1), "old/a": torch.tensor(1.0), "new/a": torch.tensor(1.0)},
    "a position beyond the tensor": {"index/a": torch.tensor([1, 4, 20])},
    "a negative position": {"index/a": torch.tensor([-1, 4, 19])},
    "floating-point positions": {"index/a": torch.tensor([1.0, 4.0, 19.0])},
    "too few old values": {"old/a": torch.ones(2)},
    "old and new of different dtypes": {"old/a": torch.ones(3, dtype=torch.float64)},
    "a negative shape": {"shape/a": torch.tensor([-4, -5])},
    "a floating-point shape": {"shape/a": torch.tensor([4.0, 5.0])},
    "an int32 shape": {"shape/a": torch.tensor([4, 5], dtype=torch.int32)},
    "a shape in two axes": {"shape/a": torch.tensor([[4, 5]])},
    "a shape without axes": {"shape/a": torch.tensor(20)},
    "an empty tensor": {"shape/a": torch.tensor([0, 5])},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_unsound_list_is_refused_by_name(change: dict[str, Tensor], tmp_path: Path, unchecked: None) -> None:
    with pytest.raises(InvalidFile, match=r"model\.safetensors, tensor 'a', is not a sound fault list"):
        ModelFaults.load(written(tmp_path, SOUND | change))


@pytest.mark.parametrize("name", SOUND)
def test_a_file_without_one_of_its_tensors_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="is not a fault list"):
        ModelFaults.load(written(tmp_path, {key: value for key, value in SOUND.items() if key != name}))


@pytest.mark.parametrize("name", ["index/b", "a", "", "value/a", "SHAPE/a"])
def test_a_file_with_a_stray_tensor_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=f"'{name}' belongs to no tensor"):
        ModelFaults.load(written(tmp_path, SOUND | {name: torch.zeros(2)}))


@pytest.mark.parametrize("metadata", [None, {"shape": "4,5"}, {"format": "planaria model faults 2"}, {"format": ""}])
def test_a_file_of_another_format_is_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"its format is .*, not 'planaria model faults 1'"):
        ModelFaults.load(written(tmp_path, SOUND, metadata))


@pytest.mark.parametrize("content", [b"", b"no", b"\x00" * 64, b"\xff" * 64, b"index,old,new\n1,2,3\n"])
def test_what_is_not_safetensors_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "faults").write_bytes(content)
    with pytest.raises(InvalidFile, match="is not a fault list"):
        ModelFaults.load(tmp_path / "faults")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "faults.safetensors"
    WholeWeight(0.3).apply_to_model(MODEL, generator(0, "damage")).save(path)
    before = path.read_bytes()

    def no_space(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("planaria.files.os.fsync", no_space)
    with pytest.raises(OutputFailed, match="No space left"):
        WholeWeight(0.5).apply_to_model(MODEL, generator(1, "damage")).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@given(length=st.floats(0, 0.999))
def test_a_file_cut_short_is_refused(length: float, tmp_path: Path) -> None:
    path = written(tmp_path, SOUND)
    content = path.read_bytes()
    path.write_bytes(content[: int(length * len(content))])
    with pytest.raises(InvalidFile, match="is not a fault list"):
        ModelFaults.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        ModelFaults.load(tmp_path / "nowhere.safetensors")
