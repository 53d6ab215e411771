"""Makes what the laboratory ships: the four trained networks and 1,000 calibration images.

    PLANARIA_DATA=/path/to/data python benchmarks/make_package_data.py

needs the MNIST training images. It writes into `lab/src/planaria_lab/data` and prints the checksums that
`NETWORKS` of `planaria_lab.bench.tinymlp`, `planaria_lab.bench.frontier.convnet`, `planaria_lab.bench.resnet` and
`planaria_lab.datasets` hold; on the same machine, package versions and number of threads it repeats the files bit for
bit (other processors may round differently; the residual network was trained on one thread). Training takes about 5
minutes on 2 cores.
"""

import gzip
import hashlib
import struct
from pathlib import Path

import torch
from safetensors.torch import save

from planaria.files import make_folder, write_atomically
from planaria_lab import datasets
from planaria_lab.bench import resnet, tinymlp
from planaria_lab.bench.frontier import convnet
from planaria_lab.bench.int8 import quantised

DATA = Path(__file__).parents[1] / "lab" / "src" / "planaria_lab" / "data"


def main() -> None:
    mnist = datasets.mnist()
    for name in tinymlp.NETWORKS:
        network = tinymlp.train(name, mnist)
        content = save(network.state_dict())
        write_atomically(DATA / "tinymlp" / f"{name.lower()}.safetensors", content)
        accuracy = network.accuracy(tinymlp.standardised(mnist.test_images), mnist.test_labels)
        print(f"network {name}: {accuracy:.2f} % right, sha256 {hashlib.sha256(content).hexdigest()}")

    classifier = convnet.train(mnist)
    content = save(classifier.state_dict())
    make_folder(DATA / "convnet")
    write_atomically(DATA / "convnet" / "mnist.safetensors", content)
    answers = classifier(convnet.images_in(mnist.test_images)).argmax(1)
    right = 100 * (answers == mnist.test_labels).double().mean()
    print(f"convolutional network: {right:.2f} % right, sha256 {hashlib.sha256(content).hexdigest()}")

    int8 = quantised(resnet.train(mnist))
    content = save(int8.state_dict())
    make_folder(DATA / "resnet")
    write_atomically(DATA / "resnet" / "mnist_int8.safetensors", content)
    with torch.no_grad():
        answers = int8(convnet.images_in(mnist.test_images)).argmax(1)
    right = 100 * (answers == mnist.test_labels).double().mean()
    print(f"residual network in int8: {right:.2f} % right, sha256 {hashlib.sha256(content).hexdigest()}")

    images = mnist.train_images[: datasets.CALIBRATION_IMAGES]
    raw = struct.pack(">IIII", 0x803, *images.shape) + images.numpy().tobytes()
    write_atomically(DATA / "mnist" / "calibration-images-idx3-ubyte.gz", gzip.compress(raw, 9, mtime=0))
    print(f"calibration images: sha256 of the decompressed file {hashlib.sha256(raw).hexdigest()}")


if __name__ == "__main__":
    main()
