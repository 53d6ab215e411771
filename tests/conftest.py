"""What all tests share: one deterministic hypothesis profile, and a way past the shape checks of the test run."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "planaria",
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("planaria")
torch.set_num_threads(2)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switches the shape checks off: users run without them, so planaria's own checks must hold alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
