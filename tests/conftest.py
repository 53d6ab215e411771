"""What all tests share: one deterministic hypothesis profile, an order, and a way past the shape checks of the run."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "planaria",
    deadline=None,
    derandomize=True,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("explore", settings.get_profile("planaria"), derandomize=False, max_examples=200)
settings.load_profile("planaria")
torch.set_num_threads(1)  # two processes share the cores; threads of small tensors would wait for one another

# They come first: with files shared out among processes, a long one that came last would leave the others idle.
LONGEST = {"test_readme.py", "test_docs.py", "test_planner.py", "test_hostile.py", "test_frontier.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switches the shape checks off: users run without them, so planaria's own checks must hold alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
