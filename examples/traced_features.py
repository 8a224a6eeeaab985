"""A feature extractor by torch.fx: the graph up to some modules, and nothing that comes later.

python examples/traced_features.py
"""

import torch
import torch.fx

import alexnet


class ByModule(torch.fx.Tracer):
    """Remembers which node is the result of which module."""

    def __init__(self):
        super().__init__()
        self.results: dict[str, torch.fx.Node] = {}

    def call_module(self, m, forward, args, kwargs):
        result = super().call_module(m, forward, args, kwargs)
        self.results[self.path_of_module(m)] = result.node
        return result


def extractor(network: torch.nn.Module, modules: list[str]) -> torch.fx.GraphModule:
    tracer = ByModule()
    graph = tracer.trace(network)
    graph.output_node().args = ({name: tracer.results[name] for name in modules},)
    found = torch.fx.GraphModule(network, graph)
    found.graph.eliminate_dead_code()
    found.recompile()
    found.delete_all_unused_submodules()
    return found


def main() -> dict[str, torch.Tensor]:
    network = alexnet.create_model("alexnet_2012", num_classes=10, fc_units=(64, 64), init="he").eval()
    features = extractor(network, ["stage2", "stage5", "fc6"])
    with torch.inference_mode():
        found = features(torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
    for name, feature in found.items():
        print(f"{name}: {tuple(feature.shape)}")
    return found


if __name__ == "__main__":
    main()
