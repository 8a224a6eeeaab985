"""Train on a dataset of Hugging Face: Parquet files with the columns `image` and `label`.

    python examples/hugging_face_dataset.py                  # files that it writes itself
    python examples/hugging_face_dataset.py folder/          # a dataset that you have: its folder of .parquet files

The same folder can be named on the command line: alexnet check folder/; alexnet train folder/. It needs pyarrow
(pip install "alexnet[parquet]"), and not the library `datasets`.
"""

import io
import json
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image

import alexnet

CLASSES = ["sunset", "meadow", "sea"]
COLORS = [(220, 110, 40), (60, 160, 50), (40, 90, 200)]


def write_dataset(folder: Path) -> None:
    """What `datasets.Dataset.to_parquet` writes: encoded images, labels, and the names of the classes in the metadata."""
    draw = torch.Generator().manual_seed(2012)
    features = {"image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}
    folder.mkdir()
    for split, count in (("train", 60), ("validation", 15)):
        images, labels = [], [i % 3 for i in range(count)]
        for label in labels:
            noise = torch.randint(-35, 36, (40, 40, 3), generator=draw)
            pixels = (torch.tensor(COLORS[label]) + noise).clamp(0, 255).to(torch.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels.numpy()).save(file, "PNG")
            images.append({"bytes": file.getvalue(), "path": None})
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(images, kind), "label": labels})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def main(dataset: str | None = None, epochs: int = 3) -> float:
    """The error of a small network on the held-out rows."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(dataset or Path(scratch) / "dataset")
        if dataset is None:
            write_dataset(source)
        print(f"{len(alexnet.check(source)['faults'])} faults in {source.name}")

        # Rows are decoded once. Classes and splits are those of the files.
        packed = alexnet.prepare(source, Path(scratch) / "packed", size=32, workers=1)
        print(", ".join(packed.classes), {name: len(split) for name, split in packed.splits.items()})

        reads = alexnet.Preprocessing(resize=32, crop=24)
        images = alexnet.ImageDataset(packed, "train", preprocessing=reads, augmentation=alexnet.Augmentation())
        held_out = alexnet.ImageDataset(packed, packed.held_out, preprocessing=reads)
        network = alexnet.create_model("cifar_18pct", num_classes=len(packed.classes), input_size=24)
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
        torch.manual_seed(0)
        for epoch in range(epochs):
            images.set_epoch(epoch)
            for x_BCHW, label_B in torch.utils.data.DataLoader(images, batch_size=10, shuffle=True):
                optimizer.zero_grad()
                F.cross_entropy(network(x_BCHW), label_B).backward()
                optimizer.step()
        network.eval()
        x_BCHW, label_B = held_out.inputs(range(len(held_out)), epoch=0), torch.from_numpy(held_out.labels)
        with torch.inference_mode():
            error = (network(x_BCHW).argmax(1) != label_B).float().mean().item()
        print(f"error on {len(held_out)} held-out images {error:.1%}")
        return error


if __name__ == "__main__":
    main(*sys.argv[1:2])
