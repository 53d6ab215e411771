import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from helpers import drawn, examples, same_bits
from hypothesis import given
from torch import Tensor, nn

import planaria.scrubber
from planaria.errors import InvalidInput, OtherModel
from planaria.guard import Guard, Report, protect
from planaria.guard.repair import diagnose
from planaria.scrubber import Scrubber

SIDE = 128
TILE = 4096
TILES = 2 * SIDE * SIDE * 4 // TILE
THREAD = "planaria scrubber"


class Witness(nn.Module):
    """Reads its two weights one after the other, `between` which a write would show."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(drawn(SIDE, SIDE, name="first"))
        self.second = nn.Parameter(drawn(SIDE, SIDE, name="second"))
        self.between: Callable[[], object] = lambda: None

    def forward(self) -> tuple[bytes, bytes]:
        first = content(self.first)
        self.between()
        return first, content(self.second)

    def damage(self) -> None:
        """A broken weight in each of the two: less than the parity corrects."""
        with torch.no_grad():
            self.first[3, 5] = 1e30
            self.second[100, 7] = 1e30


class Damaged(Witness):
    def __init__(self) -> None:
        super().__init__()
        self.damage()


def content(weight: Tensor) -> bytes:
    return weight.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def guard_of(model: nn.Module) -> Guard:
    return protect(model, budget=0.1, tiers=("digest", "parity"))


def until(condition: Callable[[], object]) -> None:
    """Waits for what must come, for as long as a busy machine may need."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def wants_to_write(scrubber: Scrubber) -> bool:
    return scrubber._gate._closed


def next_pass(scrubber: Scrubber, count: int = 2) -> None:
    """Waits until the whole model was walked again: the pass under way may be past the place of interest."""
    passes = scrubber.status().passes
    until(lambda: scrubber.status().passes >= passes + count)


def scrubbing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


class Held:
    """A forward pass in another thread, held between its two readings."""

    def __init__(self, model: Witness):
        reached, self.go = threading.Event(), threading.Event()
        self.answer: list[tuple[bytes, bytes]] = []

        def between() -> None:
            reached.set()
            assert self.go.wait(60)

        model.between = between
        self.thread = threading.Thread(target=lambda: self.answer.append(model()))
        self.thread.start()
        assert reached.wait(60)
        model.between = lambda: None

    def finish(self) -> tuple[bytes, bytes]:
        self.go.set()
        self.thread.join(60)
        return self.answer[0]


@pytest.fixture(scope="module")
def guard() -> Guard:
    return guard_of(Witness())


@pytest.fixture(autouse=True)
def _quick_and_clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(planaria.scrubber, "REST", 0.01)
    monkeypatch.setattr(planaria.scrubber, "PAUSE", 0.01)
    yield
    assert not scrubbing_threads()
    assert not planaria.scrubber.scrubbed


# What it repairs


def test_damage_that_appears_while_running_is_corrected_bit_for_bit_counted_reported_and_logged(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    model, intact = Witness(), Witness()()
    reports: list[Report] = []
    with Scrubber(model, guard, callback=reports.append) as scrubber:
        next_pass(scrubber)
        assert scrubber.status().corrected == 0
        for seen in (2, 4):
            model.damage()
            until(lambda seen=seen: scrubber.status().corrected == seen and len(reports) >= seen / 2)
            assert model() == intact
        next_pass(scrubber)
    status = scrubber.status()
    assert (status.corrected, status.estimated, status.uncorrectable, status.last_error) == (4, 0, 0, None)
    assert status.passes * TILES <= status.checked < (status.passes + 1) * TILES
    assert sum(report.count("exact") for report in reports) == 4
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * len(reports)
    assert "restored bit for bit" in caplog.text


class Mixed(nn.Module):
    """Weights and buffers of several types, tied, scalar, empty, transposed and made under inference mode."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 64)
        self.head = nn.Linear(64, 100, bias=False)
        self.embedding.weight.data = drawn(100, 64, name="embedding")
        self.head.weight = self.embedding.weight
        self.brain = nn.Parameter(drawn(64, 65).bfloat16(), requires_grad=False)
        self.turned = nn.Parameter(drawn(64, 48, name="turned").T)
        with torch.inference_mode():
            self.frozen = nn.Parameter(drawn(64, 64, name="frozen"), requires_grad=False)
        self.register_buffer("quantised", (drawn(90, 101) * 40).to(torch.int8))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("nothing", torch.empty(0))


@pytest.fixture(scope="module")
def mixed_guard() -> Guard:
    return guard_of(Mixed())


@examples(20)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["head.weight", "brain", "turned", "frozen", "quantised", "count"]),
            st.floats(0, 1, exclude_max=True),
            st.integers(0, 7),
        ),
        min_size=1,
        max_size=8,
        unique=True,
    )
)
def test_flipped_bits_of_any_type_and_place_are_restored_in_the_same_memory(
    mixed_guard: Guard, flips: list[tuple[str, float, int]]
) -> None:
    model = Mixed()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    objects = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    places = {name: tensor.data_ptr() for name, tensor in objects.items()}
    with torch.inference_mode():
        for name, where, bit in flips:
            stored = model.state_dict()[name]
            line = stored.as_strided((stored.numel(),), (1,)).view(torch.uint8)
            line[int(where * len(line))] ^= 1 << bit
    changed = any(not same_bits(tensor, before[name]) for name, tensor in model.state_dict().items())
    with Scrubber(model, mixed_guard, rate=1e9) as scrubber:
        until(lambda: scrubber.status().corrected or not changed)
        next_pass(scrubber)
    assert all(same_bits(tensor, before[name]) for name, tensor in model.state_dict().items())
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert all(after[name] is objects[name] and after[name].data_ptr() == places[name] for name in places)
    assert model.head.weight is model.embedding.weight
    assert scrubber.status().last_error is None


def test_an_optimiser_goes_on_with_the_same_parameters_gradients_and_state() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(drawn(8, 128)).square().mean().backward()
    optimiser.step()
    parameters = list(model.parameters())
    state = copy.deepcopy(optimiser.state_dict())
    gradients = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    weights = [parameter.detach().clone() for parameter in parameters]
    with Scrubber(model, guard_of(model)) as scrubber:
        with torch.no_grad():
            model[0].weight[1, 2] = -1e9
        until(lambda: scrubber.status().corrected)
    assert all(now is then for now, then in zip(optimiser.param_groups[0]["params"], parameters, strict=True))
    assert all(now is then for now, then in zip(model.parameters(), parameters, strict=True))
    assert all(same_bits(parameter.detach(), weight) for parameter, weight in zip(parameters, weights, strict=True))
    for index, moments in optimiser.state_dict()["state"].items():
        assert all(same_bits(moments[name], kept) for name, kept in state["state"][index].items())
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert parameter.requires_grad and parameter.grad is not None and same_bits(parameter.grad, gradient)
    optimiser.step()
    assert not any(torch.equal(parameter, weight) for parameter, weight in zip(parameters, weights, strict=True))


def test_what_no_parity_restores_is_estimated_once_and_not_again_at_each_pass(guard: Guard) -> None:
    model = Witness()
    reports: list[Report] = []
    with Scrubber(model, guard, callback=reports.append) as scrubber:
        with torch.no_grad():
            model.first[:64] = drawn(64, SIDE, name="noise") * 100
        until(lambda: reports)
        next_pass(scrubber)
        once, repaired = scrubber.status(), model()
        assert once.estimated + once.uncorrectable > 0
        assert model.first.isfinite().all() and model.first.abs().max() < 10
        next_pass(scrubber, 10)
        again = scrubber.status()
        assert (again.estimated, again.uncorrectable) == (once.estimated, once.uncorrectable)
        assert len(reports) == 1 and model() == repaired
        # Later damage is seen all the same, and old damage not counted twice.
        with torch.no_grad():
            model.second[90, 90] = 1e30
        until(lambda: len(reports) == 2)
        next_pass(scrubber)
    later = scrubber.status()
    assert sum((later.corrected, later.estimated, later.uncorrectable)) == once.estimated + once.uncorrectable + 1
    assert len(reports) == 2 and model.second[90, 90] != 1e30


def test_fine_tuned_weights_stay_as_they_are_and_are_named_once(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    model = Witness()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1e-3 * torch.sign(parameter)
            parameter.clamp_(-2, 2)
    tuned = model()
    with Scrubber(model, guard) as scrubber:
        until(lambda: scrubber.status().last_error)
        next_pass(scrubber, 5)
    assert "LooksDifferent" in (scrubber.status().last_error or "")
    assert model() == tuned
    assert len(caplog.records) == 1
    assert scrubber.status().corrected == scrubber.status().estimated == scrubber.status().uncorrectable == 0


def test_damage_that_is_gone_when_looked_at_closely_is_not_reported(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, intact = Damaged(), Witness()
    reports: list[Report] = []

    def put_right_first(*arguments: Any, **options: Any) -> Any:
        model.load_state_dict(intact.state_dict())
        return diagnose(*arguments, **options)

    monkeypatch.setattr(planaria.scrubber, "diagnose", put_right_first)
    with Scrubber(model, guard, callback=reports.append) as scrubber:
        next_pass(scrubber)
    assert model() == intact()
    assert reports == [] and scrubber.status().corrected == 0


# What forward passes see


@pytest.mark.parametrize("threads", [1, 3])
def test_each_pass_sees_the_damaged_or_the_repaired_weights_and_never_a_mixture(guard: Guard, threads: int) -> None:
    intact, damaged = Witness()(), Damaged()()
    for _ in range(4):
        model = Damaged()
        model.between = lambda: time.sleep(0.003)
        seen: list[list[tuple[bytes, bytes]]] = [[] for _ in range(threads)]

        def serve(seen: list[tuple[bytes, bytes]], model: Witness = model) -> None:
            while not seen or seen[-1] == damaged:
                seen.append(model())

        servers = [threading.Thread(target=serve, args=(answers,)) for answers in seen]
        for server in servers:
            server.start()
        until(lambda seen=seen: all(seen))
        with Scrubber(model, guard):
            for server in servers:
                server.join(60)
        for answers in seen:
            assert set(answers[:-1]) == {damaged} and answers[-1] == intact


def test_passes_of_several_threads_run_at_the_same_time(guard: Guard) -> None:
    model = Witness()
    meeting = threading.Barrier(3)
    model.between = lambda: meeting.wait(60)
    with Scrubber(model, guard):
        passes = [threading.Thread(target=model) for _ in range(2)]
        for each in passes:
            each.start()
        assert model() == Witness()()
        for each in passes:
            each.join(60)


def test_a_pass_that_began_before_the_scrubber_is_waited_for(guard: Guard) -> None:
    model = Damaged()
    held = Held(model)
    with Scrubber(model, guard) as scrubber:
        until(lambda: wants_to_write(scrubber))
        time.sleep(0.05)
        assert scrubber.status().corrected == 0
        assert held.finish() == Damaged()()
        until(lambda: scrubber.status().corrected)
        assert model() == Witness()()


def test_a_pass_under_way_neither_holds_up_the_end_nor_is_forgotten_by_the_next_beginning(guard: Guard) -> None:
    model = Damaged()
    scrubber = Scrubber(model, guard)
    with scrubber:
        held = Held(model)
        until(lambda: wants_to_write(scrubber))
    assert model() == Damaged()()
    with scrubber:
        until(lambda: wants_to_write(scrubber))
        time.sleep(0.05)
        assert scrubber.status().corrected == 0
        assert held.finish() == Damaged()()
        until(lambda: scrubber.status().corrected == 2)


def test_passes_that_wait_for_a_write_go_on_when_the_scrubber_ends_instead(guard: Guard) -> None:
    model = Damaged()
    answers: list[tuple[bytes, bytes]] = []
    with Scrubber(model, guard) as scrubber:
        held = Held(model)
        until(lambda: wants_to_write(scrubber))
        late = threading.Thread(target=lambda: answers.append(model()))
        late.start()
        late.join(0.05)
        assert late.is_alive() and answers == []
    late.join(60)
    assert answers == [held.finish()] == [Damaged()()]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_pass_that_raises_leaves_the_way_open_for_writes_and_for_passes(
    guard: Guard, error: type[BaseException]
) -> None:
    model = Witness()

    def fail() -> None:
        raise error("in a forward pass")

    with Scrubber(model, guard) as scrubber:
        model.between = fail
        for _ in range(3):
            with pytest.raises(error, match="in a forward pass"):
                model()
        model.between = lambda: None
        model.damage()
        until(lambda: scrubber.status().corrected == 2)
        assert model() == Witness()()


def test_a_pass_inside_a_pass_goes_through_while_a_write_waits_for_both(guard: Guard) -> None:
    model = Witness()
    inner: list[tuple[bytes, bytes]] = []

    def call_again() -> None:
        model.between = lambda: None
        model.damage()
        until(lambda: wants_to_write(scrubber))
        inner.append(model())
        assert scrubber.status().corrected == 0

    with Scrubber(model, guard) as scrubber:
        model.between = call_again
        intact, damaged = Witness()(), Damaged()()
        assert model() == (intact[0], damaged[1]) and inner == [damaged]
        until(lambda: scrubber.status().corrected == 2)
        assert model() == intact


# How it runs


def test_no_more_is_walked_than_the_rate_allows_nor_made_up_for_after_a_break(guard: Guard) -> None:
    rate = 400_000
    model = Damaged()
    repaired = threading.Event()

    def slow(_: Report) -> None:
        time.sleep(0.4)
        repaired.set()

    began = time.monotonic()
    with Scrubber(model, guard, rate=rate, callback=slow) as scrubber:
        for event in (None, repaired):
            if event:
                assert event.wait(60)
                began = time.monotonic()
            already = scrubber.status().checked if event else 0
            for _ in range(20):
                time.sleep(0.01)
                walked = (scrubber.status().checked - already) * TILE
                # A look that was due when the watch began comes on top.
                assert walked <= rate * (time.monotonic() - began) + TILE
            until(lambda already=already: scrubber.status().checked > already)


def test_a_body_that_raises_ends_the_scrubber_and_its_error_comes_through(guard: Guard) -> None:
    model = Witness()

    def serve() -> None:
        with Scrubber(model, guard, rate=1e-300) as scrubber:
            time.sleep(0.03)
            assert len(scrubbing_threads()) == 1 and scrubber.status().last_error is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve()
    assert not scrubbing_threads() and not model._forward_pre_hooks


def test_the_end_does_not_wait_for_a_long_repair(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    started = threading.Event()

    def endless(*_: object, progress: Callable[[int], None], **options: object) -> None:
        started.set()
        while True:
            progress(0)

    monkeypatch.setattr(planaria.scrubber, "diagnose", endless)
    with Scrubber(Damaged(), guard):
        assert started.wait(60)
    assert not scrubbing_threads()


def test_nothing_is_left_on_the_module_and_hooks_of_others_stay(guard: Guard) -> None:
    model = Witness()
    calls: list[str] = []
    model.register_forward_pre_hook(lambda *_: calls.append("before"))
    model.register_forward_hook(lambda *_: calls.append("after"))

    def everything() -> dict[str, object]:
        return {name: dict(value) if isinstance(value, dict) else value for name, value in vars(model).items()}

    before, names, flags = everything(), set(dir(model)), [parameter.requires_grad for parameter in model.parameters()]
    with Scrubber(model, guard) as scrubber:
        assert everything() != before
        model.damage()
        until(lambda: scrubber.status().corrected)
        model()
    assert everything() == before and set(dir(model)) == names
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert calls == ["before", "after"]


def test_a_scrubber_can_be_entered_again_and_goes_on_counting(guard: Guard) -> None:
    model = Witness()
    scrubber = Scrubber(model, guard)
    for seen in (2, 4):
        with scrubber:
            model.damage()
            until(lambda seen=seen: scrubber.status().corrected == seen)
        assert model() == Witness()()
        model.damage()
        time.sleep(0.03)
        assert scrubber.status().corrected == seen
        model.load_state_dict(Witness().state_dict())


def test_a_module_has_one_scrubber_at_a_time(guard: Guard) -> None:
    model = Witness()
    with Scrubber(model, guard) as scrubber:
        for second in (scrubber, Scrubber(model, guard)):
            with pytest.raises(InvalidInput, match="is running"), second:
                pass
        assert len(scrubbing_threads()) == len(model._forward_pre_hooks) == 1
        model.damage()
        until(lambda: scrubber.status().corrected == 2)
    with Scrubber(model, guard), Scrubber(Witness(), guard):
        assert len(scrubbing_threads()) == 2


def test_a_callback_that_fails_is_logged_and_does_not_end_the_service(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    model = Witness()

    def fail(report: Report) -> None:
        raise RuntimeError("no room in the log")

    with Scrubber(model, guard, callback=fail) as scrubber:
        for _ in range(2):
            errors = caplog.text.count("Traceback")
            model.damage()
            until(lambda errors=errors: caplog.text.count("Traceback") > errors and model() == Witness()())
    assert scrubber.status().corrected == 4
    assert scrubber.status().last_error == "RuntimeError: no room in the log"


def test_a_model_that_changes_its_type_is_left_alone_until_it_changes_back(guard: Guard) -> None:
    model = Witness()
    with Scrubber(model, guard) as scrubber:
        model.double()
        until(lambda: "OtherModel" in (scrubber.status().last_error or ""))
        assert all(parameter.dtype == torch.float64 for parameter in model.parameters())
        model.float()
        model.damage()
        until(lambda: scrubber.status().corrected == 2)
        assert model() == Witness()()


def test_a_copy_made_meanwhile_is_a_module_of_its_own(guard: Guard) -> None:
    model = Witness()
    with Scrubber(model, guard) as scrubber:
        twin = copy.deepcopy(model)
        twin.damage()
        next_pass(scrubber)
    assert twin() == Damaged()() and model() == Witness()()
    assert scrubber.status().corrected == 0


@pytest.mark.parametrize("rate", [1e6, float("inf")])
@pytest.mark.parametrize("key", [None, bytes(range(32))], ids=["no key", "a key"])
def test_tiles_are_taken_for_damaged_only_when_they_are_at_any_rate_and_with_any_key(
    monkeypatch: pytest.MonkeyPatch, rate: float, key: bytes | None
) -> None:
    model = Witness()
    keyed = protect(model, budget=0.1, tiers=("digest", "parity"), key=key)
    diagnoses: list[bool] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        diagnoses.append(True)
        return diagnose(*arguments, **options)

    monkeypatch.setattr(planaria.scrubber, "diagnose", counted)
    with Scrubber(model, keyed, rate=rate) as scrubber:
        next_pass(scrubber)
        assert diagnoses == []
        model.damage()
        until(lambda: scrubber.status().corrected == 2)
    assert model() == Witness()()


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_walks_nothing_is_refused(guard: Guard, rate: float) -> None:
    with pytest.raises(InvalidInput, match="more than 0 bytes a second"):
        Scrubber(Witness(), guard, rate=rate)


def test_a_guard_of_another_model_or_without_its_digests_is_refused(guard: Guard) -> None:
    with pytest.raises(OtherModel):
        Scrubber(nn.Linear(3, 3), guard)
    arrays = {name: array for name, array in guard.arrays.items() if name != "digest.tiles"}
    with pytest.raises(InvalidInput, match="another copy"):
        Scrubber(Witness(), Guard(guard.manifest, arrays, lost=("digest.tiles",)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_weights_on_a_gpu_are_repaired_there() -> None:
    torch.manual_seed(0)
    model = nn.Linear(256, 128).cuda()
    intact, place = model.weight.detach().clone(), model.weight.data_ptr()
    with Scrubber(model, guard_of(model)) as scrubber:
        with torch.no_grad():
            model.weight[5, 5] = 1e30
        until(lambda: scrubber.status().corrected)
    assert same_bits(model.weight.detach(), intact) and model.weight.data_ptr() == place
