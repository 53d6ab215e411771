"""Makes the guards that every later version must read, with their models: once for each version of the format.

    python benchmarks/make_golden_guards.py

writes `tests/guard/golden/NAME/model.safetensors` and `guard`, and refuses to write over them: a guard that was made
stays as it is. The weights are multiples of 1/64, of which sums are exact in any order: so every machine makes the same
statistics, and but for those with a rule or memory the same guards.
"""

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from planaria.files import make_folder, write_atomically
from planaria.fit import Schedule
from planaria.guard import protect
from planaria.streams import generator

GOLDEN = Path(__file__).parents[1] / "tests" / "guard" / "golden"
KEY = bytes(range(32))
SETTINGS = {
    "v1-plain": {"budget": 0.25, "tiers": ("digest", "parity")},
    "v1-keyed": {"budget": 0.25, "tiers": ("digest", "parity"), "key": KEY},
    "v1-rule": {
        "budget": 0.3,
        "tiers": ("digest", "parity", "rule"),
        "schedule": Schedule(iterations=300, check_every=100),
    },
    "v2-memory": {"budget": 0.28, "tiers": ("digest", "copy", "parity", "sketch", "refinement")},
    "v2-ladder": {"budget": 0.25, "tiers": ("digest", "copy", "parity", "refinement")},
    "v3-plain": {"budget": 0.12, "tiers": ("digest", "parity")},
    "v1-frozen": {"budget": 0.3, "tiers": ("digest", "parity", "rule")},
    "v3-memory": {"budget": 0.2, "tiers": ("digest", "copy", "parity", "sketch", "refinement"), "key": KEY},
    "v4-plain": {"budget": 0.12, "tiers": ("digest", "parity")},
    "v5-stripe": {"budget": 0.8, "tiers": ("digest", "stripe", "parity")},
}


def model(name: str) -> dict[str, Tensor]:
    """Several types; smooth images where a rule is wanted."""
    source = generator(0, "golden")
    rough = torch.randn(40, 1, 16, 16, generator=source)
    if name in ("v1-rule", "v2-memory", "v2-ladder", "v1-frozen"):
        rough = torch.nn.functional.avg_pool2d(torch.nn.functional.avg_pool2d(rough, 5, stride=1), 5, stride=1)
    sheets = rough / rough.std()
    tensors = {
        "filters": sheets[:, :, :8, :8],
        "scale": 1 + torch.randn(31, generator=source) / 8,
        "half": torch.randn(41, 33, generator=source),
    }
    if name.startswith(("v3", "v4")):
        tensors |= {f"norm.{place}": 1 + torch.randn(30, generator=source) / 8 for place in range(20)}
    if name.startswith("v5"):
        tensors["wide"] = torch.randn(100, 50, generator=source)
    exact = {key: (64 * tensor).round().clamp(-256, 256) / 64 for key, tensor in tensors.items()}
    if name.startswith("v4"):
        exact["mask"] = torch.full((5, 5), -torch.inf).triu(1)
    return {key: tensor.contiguous() for key, tensor in exact.items()} | {
        "half": exact["half"].half(),
        "codes": torch.randint(-128, 128, (37, 41), generator=source, dtype=torch.int8),
        "steps": torch.tensor(1234),
    }


def register_stripes() -> None:
    """The tier of docs/tiers.md, which registers itself."""
    page = (Path(__file__).parents[1] / "docs" / "tiers.md").read_text(encoding="utf-8")
    exec(page.split("```python\n")[1].split("```")[0], {})


def main() -> None:
    register_stripes()
    for name, settings in SETTINGS.items():
        folder = make_folder(GOLDEN / name)
        if any(folder.iterdir()):
            print(f"{name} is there, and stays")
            continue
        write_atomically(folder / "model.safetensors", save(model(name)))
        guard = protect(folder / "model.safetensors", **settings)  # type: ignore[arg-type]
        guard.save(folder / "guard")
        print(f"{name}: guard of {guard.size} bytes, {len(guard.manifest.rules)} rules")


if __name__ == "__main__":
    main()
