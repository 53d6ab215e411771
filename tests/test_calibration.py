"""Second moments of layer inputs, measured and read from hostile files."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from helpers import drawn
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from planaria.calibration import _shrunk, load_calibration, natural_images, second_moments_of
from planaria.errors import InvalidFile, InvalidInput
from planaria.fit import second_moments

SHAPES = {"layer.weight": (3, 5), "conv.weight": (4, 2, 1, 2), "bias": (5,)}


def saved(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    save_file(dict(tensors), folder / "calibration.safetensors")
    return folder / "calibration.safetensors"


class Small(nn.Module):
    """A convolution, a layer used twice, one that is never used, and dropout between."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution
        self.dropout = nn.Dropout(0.5)
        self.inner = nn.Sequential(nn.Linear(6, 6))
        self.idle = nn.Linear(3, 3)

    def forward(self, images: Tensor, scale: float = 1.0) -> Tensor:
        means = self.convolution(images).mean((2, 3)) * scale
        return self.inner(self.inner(self.dropout(means)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"padding": "same", "padding_mode": "reflect"},
        {"stride": 2, "dilation": 2, "padding": (2, 1), "padding_mode": "circular"},
        {"groups": 2},
        {"groups": 2, "padding": 2, "stride": (1, 2)},
    ],
)
def test_a_form_of_the_moments_is_the_mean_square_of_a_layers_output(options: dict[str, object]) -> None:
    """w' M w is the mean square of what comes out, for any weight w: that defines M."""
    convolution = nn.Conv2d(4, 6, (3, 3), bias=False, **options)  # type: ignore[arg-type]
    module, images = Small(convolution), drawn(7, 4, 9, 8)
    moment = second_moments_of(module, [images[:3], (images[3:], 0.5)])["convolution.weight"]
    # The same weight for every output: then it does not matter that the moments are pooled over groups.
    weight = drawn(1, *convolution.weight.shape[1:], seed=1)
    convolution.weight.data = weight.expand_as(convolution.weight).clone()
    expected = convolution(images).detach().square().mean()
    torch.testing.assert_close(weight.flatten() @ moment @ weight.flatten(), expected)


def test_batches_add_up_and_layers_that_are_called_twice_count_twice() -> None:
    module, images = Small(nn.Conv2d(4, 6, 3)), drawn(6, 4, 5, 5)
    whole, parts = second_moments_of(module, [images]), second_moments_of(module, [{"images": images[:1]}, images[1:]])
    assert whole.keys() == parts.keys() == {"convolution.weight", "inner.0.weight"}
    for name, moment in whole.items():
        torch.testing.assert_close(parts[name], moment)
    module.eval()
    with torch.no_grad():
        means = module.convolution(images).mean((2, 3))
        seen = torch.cat([means, module.inner(means)])
    torch.testing.assert_close(whole["inner.0.weight"], second_moments(seen))


def test_a_module_is_left_as_it_was_whatever_happens() -> None:
    module = Small(nn.Conv2d(4, 6, 3))
    module.dropout.eval()
    for batches in ([drawn(2, 4, 5, 5)], [drawn(2, 3)]):
        try:
            second_moments_of(module, batches)
        except RuntimeError:
            assert batches[0].shape == (2, 3)
        assert module.training and not module.dropout.training and module.inner.training
        assert not any(part._forward_pre_hooks for part in module.modules())


def test_without_batches_or_with_inputs_that_are_not_finite_there_are_no_moments() -> None:
    with pytest.raises(InvalidInput, match="at least one batch"):
        second_moments_of(nn.Linear(2, 2), [])
    with pytest.raises(InvalidInput, match="not all finite"):
        second_moments_of(nn.Sequential(nn.Linear(2, 2)), [torch.tensor([[1.0, float("nan")]])])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_inputs_and_moments_are_read_alike(tmp_path: Path, dtype: torch.dtype) -> None:
    inputs = drawn(50, 5).to(dtype)
    moment = second_moments(inputs)
    of_inputs = load_calibration(saved(tmp_path, {"layer.weight": inputs}), SHAPES)
    given_moment = load_calibration(saved(tmp_path, {"layer.weight.second_moment": moment}), SHAPES)
    assert of_inputs.notes == given_moment.notes == ()
    torch.testing.assert_close(of_inputs.moments["layer.weight"], moment)
    torch.testing.assert_close(given_moment.moments["layer.weight"], moment)


def test_kernels_are_multiplied_by_all_that_they_see(tmp_path: Path) -> None:
    found = load_calibration(saved(tmp_path, {"conv.weight": drawn(9, 4)}), SHAPES)
    assert found.moments["conv.weight"].shape == (4, 4) and found.moments.keys() == {"conv.weight"}


@given(samples=st.integers(1, 4), seed=st.integers(0, 99))
def test_too_few_samples_are_shrunk_to_what_can_be_inverted_and_said_so(
    tmp_path: Path, samples: int, seed: int
) -> None:
    inputs = drawn(samples, 5, seed=seed)
    found = load_calibration(saved(tmp_path, {"layer.weight": inputs}), SHAPES)
    moment, plain = found.moments["layer.weight"], second_moments(inputs)
    (note,) = found.notes
    assert f"{samples} samples of 5 inputs" in note and "diagonal" in note
    torch.testing.assert_close(moment.diagonal(), plain.diagonal())
    assert (moment.triu(1).abs() <= plain.triu(1).abs()).all()
    if samples == 1:
        assert torch.equal(moment, plain.diagonal().diag())


def test_shrinking_comes_nearer_to_the_truth() -> None:
    """With 40 inputs that are independent or nearly equal: the former are shrunk far, the latter little."""
    apart, alike = drawn(30, 40), drawn(30, 1) + 0.1 * drawn(30, 40, seed=1)
    for samples, truth, low, high in ((apart, torch.eye(40), 0.7, 1.0), (alike, 1 + 0.01 * torch.eye(40), 0.0, 0.2)):
        shrunk, share = _shrunk(samples)
        assert low <= share <= high
        if share > 0.5:
            assert (shrunk - truth).norm() < 0.7 * (second_moments(samples) - truth).norm()


def broken_moment(kind: str) -> Tensor:
    moment = second_moments(drawn(50, 5))
    if kind == "asymmetric":
        moment[0, 1] += 0.1
    elif kind == "negative":
        moment[2, 2] = -0.1
    elif kind == "indefinite":
        moment = torch.eye(5) + 2 * (1 - torch.eye(5)) * torch.tensor([1.0, -1, 1, -1, 1]).outer(torch.ones(5)).abs()
        moment = moment * torch.where(torch.eye(5).bool(), 1.0, -1.0)
    elif kind == "infinite":
        moment[1, 1] = float("inf")
    return moment


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"layer.weight.second_moment": broken_moment("asymmetric")}, "not symmetric"),
        ({"layer.weight.second_moment": broken_moment("negative")}, "1 negative mean square"),
        ({"layer.weight.second_moment": broken_moment("indefinite")}, "negative mean square"),
        ({"layer.weight.second_moment": broken_moment("infinite")}, "not finite"),
        ({"layer.weight.second_moment": torch.eye(4)}, r"shape \[4, 4\]; it must be \[5, 5\]"),
        ({"layer.weight.second_moment": torch.ones(6, 5)}, r"must be \[5, 5\]"),
        ({"layer.weight.second_moment": torch.ones(5)}, r"shape \[5\]"),
        ({"layer.weight": torch.ones(7, 4)}, r"must be \[samples, 5\]"),
        ({"layer.weight": torch.ones(0, 5)}, "at least one sample"),
        ({"layer.weight": torch.ones(2, 3, 5)}, r"shape \[2, 3, 5\]"),
        ({"layer.weight": torch.full((9, 5), float("nan"))}, "not finite"),
        ({"layer.weight": torch.full((9, 5), 1e300, dtype=torch.float64)}, "not finite in float32"),
        ({"layer.weight": torch.full((9, 5), 1e30)}, "squares are not finite"),
        ({"layer.weight": torch.ones(9, 5, dtype=torch.int32)}, "is I32"),
        ({"other.weight": torch.ones(9, 5)}, "there is no weight 'other.weight'"),
        ({"other.weight.second_moment": torch.eye(5)}, "there is no weight 'other.weight'"),
        ({"bias": torch.ones(9, 5)}, "no layer multiplies"),
        ({"layer.weight": torch.ones(9, 5), "layer.weight.second_moment": torch.eye(5)}, "both inputs and second"),
    ],
)
def test_what_cannot_be_a_calibration_is_refused_in_one_line(
    tmp_path: Path, tensors: dict[str, Tensor], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said) as refused:
        load_calibration(saved(tmp_path, tensors), SHAPES)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.safetensors"
    with pytest.raises(FileNotFoundError):
        load_calibration(path, SHAPES)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(InvalidFile):
        load_calibration(path, SHAPES)


def test_moments_summed_in_single_precision_are_sound(tmp_path: Path) -> None:
    """Inputs with a large mean, of low rank: the least eigenvalues are rounding errors, of either sign."""
    inputs = 100 + drawn(2000, 2) @ drawn(2, 5, seed=1)
    moment = second_moments(inputs)
    found = load_calibration(saved(tmp_path, {"layer.weight.second_moment": moment}), SHAPES)
    torch.testing.assert_close(found.moments["layer.weight"], moment)


@pytest.mark.parametrize("space", [(8, 8), (3, 5), (1, 1), (28, 28)])
def test_moments_of_natural_images_are_those_of_a_smooth_stationary_field(space: tuple[int, int]) -> None:
    moments = natural_images(space).double()
    height, width = space
    torch.testing.assert_close(moments.diagonal(), torch.ones(height * width).double())
    assert torch.linalg.eigvalsh(moments).min() > 0
    by_pixel = moments.view(height, width, height, width)
    assert (by_pixel[0, 0].diff(dim=0) < 0).all() and (by_pixel[0, 0].diff(dim=1) < 0).all(), "farther is less alike"
    torch.testing.assert_close(by_pixel[1:, 1:, 1:, 1:], by_pixel[:-1, :-1, :-1, :-1])


def test_natural_images_have_two_axes() -> None:
    for space in ((), (8,), (8, 0), (2, 3, 4)):
        with pytest.raises(InvalidInput, match="height"):
            natural_images(space)
