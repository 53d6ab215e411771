"""Folders of shards, which the tests of the guard share."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

INDEX = "model.safetensors.index.json"


def shards_of(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    """A new folder with a shard for each tensor, `part-0.safetensors` and so on, an index, and a configuration."""
    folder.mkdir()
    weight_map = {name: f"part-{number}.safetensors" for number, name in enumerate(tensors)}
    for name, shard in weight_map.items():
        save_file({name: tensors[name]}, folder / shard)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text("{}")
    return folder
