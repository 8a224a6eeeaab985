"""A network as ONNX, and the same answers from onnxruntime. Response normalization becomes the operator LRN.

pip install "alexnet[onnx]"
python examples/onnx_answers.py
"""

import io
import warnings

import onnx
import onnxruntime
import torch

import alexnet


def main(dynamo: bool = False) -> float:
    """``dynamo``: which of torch's two exporters; the newer one needs onnxscript, and takes longer."""
    network = alexnet.create_model("alexnet_2012", num_classes=10, fc_units=(64, 64), init="he").eval()
    x_BCHW = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its older exporter deprecated
        if dynamo:
            torch.onnx.export(network, (x_BCHW[:2],), dynamo=True, dynamic_shapes=({0: "batch"},)).save(file)
        else:
            batch = {"images": {0: "batch"}}
            torch.onnx.export(network, (x_BCHW[:2],), file, dynamo=False, input_names=["images"], dynamic_axes=batch)

    nodes = onnx.load_from_string(file.getvalue()).graph.node
    print(f"{len(nodes)} nodes, {sum(node.op_type == 'LRN' for node in nodes)} of them LRN, one in each tower")
    session = onnxruntime.InferenceSession(file.getvalue())
    (logits_BK,) = session.run(None, {session.get_inputs()[0].name: x_BCHW.numpy()})
    with torch.inference_mode():
        difference = float((torch.from_numpy(logits_BK) - network(x_BCHW)).abs().max())
    print(f"on {len(x_BCHW)} images the largest difference of a logit is {difference:.1g}")
    return difference


if __name__ == "__main__":
    main()
