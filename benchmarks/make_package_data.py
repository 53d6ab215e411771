"""Makes what the package ships: the two trained networks and 1,000 calibration images.

    PLANARIA_DATA=/path/to/data python benchmarks/make_package_data.py

needs the MNIST training images. It writes into `src/planaria/data` and prints the checksums that
`planaria.bench.tinymlp.NETWORKS` and `planaria.datasets` hold; on the same machine and package versions it repeats the
files bit for bit (other processors may round differently). Training takes about 20 seconds on 2 cores.
"""

import gzip
import hashlib
import struct
from pathlib import Path

from safetensors.torch import save

from planaria import datasets
from planaria.bench import tinymlp
from planaria.files import write_atomically

DATA = Path(__file__).parents[1] / "src" / "planaria" / "data"


def main() -> None:
    mnist = datasets.mnist()
    for name in tinymlp.NETWORKS:
        network = tinymlp.train(name, mnist)
        content = save(network.state_dict())
        write_atomically(DATA / "tinymlp" / f"{name.lower()}.safetensors", content)
        accuracy = network.accuracy(tinymlp.standardised(mnist.test_images), mnist.test_labels)
        print(f"network {name}: {accuracy:.2f} % right, sha256 {hashlib.sha256(content).hexdigest()}")

    images = mnist.train_images[: datasets.CALIBRATION_IMAGES]
    raw = struct.pack(">IIII", 0x803, *images.shape) + images.numpy().tobytes()
    write_atomically(DATA / "mnist" / "calibration-images-idx3-ubyte.gz", gzip.compress(raw, 9, mtime=0))
    print(f"calibration images: sha256 of the decompressed file {hashlib.sha256(raw).hexdigest()}")


if __name__ == "__main__":
    main()
