"""What planaria is measured with, and beside what.

- `datasets`: digits, MNIST, Fashion-MNIST; two trained networks and the MNIST test images come with the package
- `bench`: experiments, tables, figures; `reference`: the automaton that planaria's is compared with
- `attacks`: what breaks weights by gradient; `campaigns`: defences compared under the same stored faults
- `repairers`, `detectors`: baselines of the kinds that the library has
- `zoo`: populations of networks; `network_repairers`: what repairs whole networks after learning from others;
  `pretrained`: how the rules that come with the library are learned on them
- `bounds`: the limits that nobody passes
"""
