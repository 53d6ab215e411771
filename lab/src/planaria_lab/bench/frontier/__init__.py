"""What a few bytes beside the weights can restore of them: side memories compared at equal bytes."""

from planaria_lab.bench.frontier.base import FrontierEstimate as FrontierEstimate
from planaria_lab.bench.frontier.base import FrontierSubject as FrontierSubject
from planaria_lab.bench.frontier.base import SideMemory as SideMemory
from planaria_lab.bench.frontier.method import Method as Method
