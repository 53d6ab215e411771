"""Analog devices against their published formulas."""

import math

import pytest
import torch
from helpers import drawn, same_bits
from torch import Tensor

from planaria.damages import ConductanceQuantisation, Damage, DeviceStuckAt, Drift, ProgrammingNoise
from planaria.errors import InvalidInput
from planaria.streams import generator

PCM = (0.26348, 1.9650, -1.1731)  # microsiemens, of a range of 25
WAN = {  # microsiemens, of a range of 40
    "reram": (0.348, 16.030, -43.853, 45.393, -16.815),
    "reram-1-day": (0.701, 22.086, -50.773, 47.095, -16.458),
    "reram-2-days": (0.782, 20.274, -43.507, 37.062, -11.934),
}
MANY = 40_000


def levels(*shares: float) -> Tensor:
    """Weights of these shares of the range, many of each; the first two weights span it."""
    return torch.cat([torch.tensor([1.0, -1.0]), torch.tensor(shares).repeat_interleave(MANY)]).double()


def broken(damage: Damage, weight: Tensor) -> Tensor:
    """One row a level."""
    return damage.apply(weight, generator(0, "damage"))[0][2:].view(-1, MANY)


@pytest.mark.parametrize(
    ("device", "g_max", "coefficients"), [("pcm", 25.0, PCM), *((n, 40.0, c) for n, c in WAN.items())]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_programming_noise_has_the_published_deviation(
    device: str, g_max: float, coefficients: tuple[float, ...], sign: int
) -> None:
    shares = (0.4, 0.6, 0.8)  # many deviations from zero, where noise would be cut
    noisy = broken(ProgrammingNoise(device), sign * levels(*shares)) * g_max
    for share, values in zip(shares, noisy, strict=True):
        own = sum(coefficient * share**power for power, coefficient in enumerate(coefficients))
        idle = coefficients[0]  # the other device of the pair, at zero, keeps the positive half of its noise
        variance = own**2 + idle**2 * (0.5 - 1 / (2 * math.pi))
        mean = sign * (share * g_max - idle / math.sqrt(2 * math.pi))
        assert abs(values.mean() - mean) < 5 * math.sqrt(variance / MANY)
        assert abs(values.std() / math.sqrt(variance) - 1) < 5 / math.sqrt(2 * MANY)


def test_programming_noise_scales_and_knows_no_unit_of_weights() -> None:
    weight = levels(0.5)
    once = broken(ProgrammingNoise(), weight) - 0.5
    torch.testing.assert_close(broken(ProgrammingNoise(scale=0.5), weight) - 0.5, once / 2)
    torch.testing.assert_close(broken(ProgrammingNoise(), 1000 * weight) / 1000 - 0.5, once)


def test_no_conductance_is_negative() -> None:
    weight = torch.cat([torch.ones(1), torch.full((MANY,), 1e-6)]).double()
    noisy = broken(ProgrammingNoise(), torch.cat([torch.ones(1).double(), weight]))
    # Each device is at zero half of the time, so both are a quarter of it.
    assert abs(int((noisy == 0).sum()) - MANY / 4) < 5 * math.sqrt(MANY * 3 / 16) + 10


@pytest.mark.parametrize("seconds", [1.0, 3600.0, 3.15e7])
def test_drift_follows_the_published_exponents(seconds: float) -> None:
    shares = (0.001, 0.05, 0.3, 1.0)
    kept = broken(Drift(seconds, read_noise=0.0), levels(*shares)) / torch.tensor(shares)[:, None]
    exponents = -kept.log() / math.log((seconds + 20) / 20)
    for share, values in zip(shares, exponents, strict=True):
        mean = min(max(-0.0155 * math.log(share) + 0.0244, 0.049), 0.1)
        deviation = min(max(-0.0125 * math.log(share) - 0.0059, 0.008), 0.045)
        folded = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(-mean / deviation))  # |normal| is not normal
        assert abs(values.mean() - mean) < 5 * deviation / math.sqrt(MANY) + 2 * deviation * folded
        assert abs(values.std() / deviation - 1) < 5 / math.sqrt(2 * MANY) + 2 * folded
        assert (values >= -1e-9).all()


def test_read_noise_grows_as_published() -> None:
    shares = (0.01, 0.1, 1.0)
    for seconds in (0.0, 1e6):
        quiet = broken(Drift(seconds, read_noise=0.0), levels(*shares))
        noise = broken(Drift(seconds), levels(*shares)) / quiet - 1
        for share, values in zip(shares, noise, strict=True):
            deviation = min(0.0088 / share**0.65, 0.2) * math.sqrt(math.log((seconds + 20 + 250e-9) / 500e-9))
            inside = values[values > -1]  # none falls below zero
            assert len(inside) > 0.8 * MANY
            # Quantiles, as the lower tail may be cut.
            middle, upper = torch.quantile(values, torch.tensor([0.5, 0.8413], dtype=torch.float64))
            assert abs(middle) < 0.03 * deviation and abs(upper / deviation - 1) < 0.04


def test_stuck_devices_are_low_or_high_at_their_rates_and_pairs_break_independently() -> None:
    damaged = broken(DeviceStuckAt(0.1, 0.2), levels(0.5))[0]
    # Both devices stay, are low or high: the weight is the difference.
    chances = {0.5: 0.7 * (0.7 + 0.1), -0.5: 0.7 * 0.2, 0.0: 0.1 * 0.8 + 0.2 * 0.2, 1.0: 0.2 * 0.8, -1.0: 0.1 * 0.2}
    assert math.isclose(sum(chances.values()), 1)
    for value, chance in chances.items():
        assert abs(int((damaged == value).sum()) - chance * MANY) < 5 * math.sqrt(MANY * chance * (1 - chance)), value


def test_the_usual_rates_are_the_default() -> None:
    damage = DeviceStuckAt()
    assert (damage.sa0, damage.sa1) == (0.0175, 0.0904)
    high = broken(damage, levels(0.0))[0] != 0
    chance = 2 * 0.0904 * (1 - 0.0904)
    assert abs(int(high.sum()) - chance * MANY) < 5 * math.sqrt(MANY * chance * (1 - chance))


@pytest.mark.parametrize("count", [2, 3, 16])
def test_quantised_conductances_are_the_nearest_levels(count: int) -> None:
    weight = drawn(50, 40).double()
    largest = weight.abs().max()
    damaged, _ = ConductanceQuantisation(count).apply(weight, generator(0, "damage"))
    steps = damaged / largest * (count - 1)
    torch.testing.assert_close(steps, steps.round(), atol=1e-9, rtol=0)
    assert len(damaged.unique()) <= 2 * count - 1
    assert ((damaged - weight).abs() <= largest / (count - 1) / 2 + 1e-12).all()
    _, none = ConductanceQuantisation(count).apply(damaged, generator(0, "damage"))
    assert len(none.index) <= 0.01 * weight.numel()


@pytest.mark.parametrize("damage", [ProgrammingNoise(), Drift(60.0), DeviceStuckAt(0.5, 0.5)], ids=repr)
def test_zeros_alone_have_no_scale_and_stay(damage: Damage) -> None:
    weight = torch.tensor([0.0, -0.0, 0.0])
    damaged, faults = damage.apply(weight, generator(0, "damage"))
    assert same_bits(damaged, weight) and len(faults.index) == 0


def test_only_weights_whose_devices_change_are_listed() -> None:
    weight = drawn(5000).double()
    damaged, faults = DeviceStuckAt(0.01, 0.01).apply(weight, generator(0, "damage"))
    assert len(faults.index) < 0.05 * 5000
    assert same_bits(damaged[faults.known], weight[faults.known])


def test_nearly_all_weights_drift() -> None:
    assert len(Drift(1e6).apply(drawn(5000), generator(0, "damage"))[1].index) > 4990


@pytest.mark.parametrize(
    "damage", [ProgrammingNoise(), Drift(9.0), DeviceStuckAt(), ConductanceQuantisation(4)], ids=repr
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_has_no_conductance(damage: Damage, value: float) -> None:
    with pytest.raises(InvalidInput, match=r"not finite.*Leave such tensors out"):
        damage.apply(torch.tensor([1.0, value]), generator(0, "damage"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeviceStuckAt(-0.1), "not -0.1 and 0.0904"),
        (lambda: DeviceStuckAt(0.6, 0.5), "not 0.6 and 0.5"),
        (lambda: DeviceStuckAt(math.nan), "not nan"),
        (lambda: ProgrammingNoise("flash"), "'flash'.*pcm, reram, reram-1-day, reram-2-days"),
        (lambda: ProgrammingNoise(scale=-1.0), "not -1.0"),
        (lambda: Drift(-1.0), "not -1.0"),
        (lambda: Drift(math.inf), "not inf"),
        (lambda: Drift(1.0, read_noise=math.nan), "not nan"),
        (lambda: ConductanceQuantisation(1), "not 1"),
    ],
)
def test_impossible_devices_are_refused(make: object, message: str, unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()
