"""Models as the raw bytes of their tensors, read and written piece by piece. One place they live in a file."""

from planaria.checkpoints.base import Checkpoint as Checkpoint
from planaria.checkpoints.header import Entry as Entry
from planaria.checkpoints.header import Header as Header
from planaria.checkpoints.header import parse_bare_header as parse_bare_header
from planaria.checkpoints.header import parse_header as parse_header
from planaria.checkpoints.opening import open_checkpoint as open_checkpoint
from planaria.checkpoints.safetensors_file import SafetensorsFile as SafetensorsFile
from planaria.checkpoints.sharded_folder import ShardedFolder as ShardedFolder
from planaria.checkpoints.state_dict import StateDict as StateDict
from planaria.checkpoints.state_dict import write_state_dict as write_state_dict
