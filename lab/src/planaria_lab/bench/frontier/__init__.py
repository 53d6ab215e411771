"""What a few bytes beside the weights can restore of them: side memories compared at equal bytes."""

from planaria.bench.frontier.base import Estimate as Estimate
from planaria.bench.frontier.base import SideMemory as SideMemory
from planaria.bench.frontier.base import Subject as Subject
from planaria.bench.frontier.method import Method as Method
