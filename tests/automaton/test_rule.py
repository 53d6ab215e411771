"""The shared MLP."""

import pytest
import torch
from helpers import drawn, same_bits

from planaria.automaton import Rule
from planaria.errors import InvalidInput
from planaria.streams import generator


def new_rule(seed: int = 0) -> Rule:
    return Rule(6, hidden=5, outputs=4, generator=generator(seed, "rule"))


@pytest.mark.parametrize("space", [(7,), (3, 4), (2, 3, 4)])
def test_a_new_rule_changes_nothing(space: tuple[int, ...]) -> None:
    assert same_bits(new_rule()(drawn(2, 6, *space)), torch.zeros(2, 4, *space))


@pytest.mark.parametrize("space", [(7,), (3, 4), (2, 3, 4)])
def test_a_rule_is_the_same_mlp_at_every_cell(space: tuple[int, ...]) -> None:
    rule, perceived = new_rule(), drawn(2, 6, *space)
    with torch.no_grad():
        rule.delta_weight.copy_(drawn(4, 5))
        rule.delta_bias.copy_(drawn(4))
    answered = rule(perceived)
    assert answered.shape == (2, 4, *space)
    cells = perceived.movedim(1, -1)
    hidden = torch.relu(cells @ rule.hidden_weight.T + rule.hidden_bias)
    torch.testing.assert_close(answered.movedim(1, -1), hidden @ rule.delta_weight.T + rule.delta_bias)


def test_the_first_layer_depends_on_the_stream_alone_and_keeps_its_bound() -> None:
    assert same_bits(new_rule().hidden_weight.detach(), new_rule().hidden_weight.detach())
    assert not torch.equal(new_rule(0).hidden_weight, new_rule(1).hidden_weight)
    for parameter in (new_rule().hidden_weight, new_rule().hidden_bias):
        assert 0 < parameter.abs().max() <= 6**-0.5


def test_a_new_rule_can_learn() -> None:
    rule = new_rule()
    rule(drawn(2, 6, 3)).sum().backward()
    assert rule.delta_weight.grad is not None
    assert rule.delta_weight.grad.abs().sum() > 0


@pytest.mark.parametrize("wrong", ["features", "hidden", "outputs"])
def test_sizes_below_one_are_refused_by_name(wrong: str) -> None:
    sizes = {"features": 6, "hidden": 5, "outputs": 4} | {wrong: 0}
    with pytest.raises(InvalidInput, match=f"{wrong}, not 0"):
        Rule(sizes["features"], hidden=sizes["hidden"], outputs=sizes["outputs"], generator=generator(0, "rule"))
