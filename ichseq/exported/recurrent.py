"""LSTM and GRU layers over one series of any length, as a graph holds them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

_GATES: Final = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}  # torch: input forget cell output, reset update new


class OnnxRecurrent(nn.Module):
    """A bidirectional LSTM or GRU of torch as the ONNX operators of that name, which read any number of slices.

    torch would be exported as a step for each slice of the example. Gates and weights in ONNX's order:
    https://onnx.ai/onnx/operators/onnx__LSTM.html and onnx__GRU.html.
    """

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.kind, self.layers, self.hidden_size = type(layer).__name__, layer.num_layers, layer.hidden_size
        for k in range(layer.num_layers):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                ways = [getattr(layer, f"{name}_l{k}{way}").detach() for way in ("", "_reverse")]
                self.register_buffer(f"{name}{k}", torch.stack([self._in_order(one) for one in ways]))

    def _in_order(self, weights: Tensor) -> Tensor:
        gates = weights.chunk(len(_GATES[self.kind]))
        return torch.cat([gates[k] for k in _GATES[self.kind]])

    def forward(self, series: Tensor) -> tuple[Tensor, None]:
        """(1, T, D) to (1, T, 2 hidden_size), and no last state."""
        steps = series.transpose(0, 1)  # (T, 1, D)
        attributes: dict[str, Any] = {"direction": "bidirectional", "hidden_size": self.hidden_size}
        if self.kind == "GRU":
            attributes["linear_before_reset"] = 1  # as torch's
        for k in range(self.layers):
            weights, recurrent, *biases = (
                getattr(self, f"{name}{k}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            inputs = [steps, weights, recurrent, torch.cat(biases, dim=1)]
            shape = [steps.shape[0], 2, 1, self.hidden_size]
            found = torch.onnx.ops.symbolic(self.kind, inputs, attributes, dtype=steps.dtype, shape=shape)
            steps = found.permute(0, 2, 1, 3).flatten(2)
        return steps.transpose(0, 1), None


def with_onnx_layers(part: nn.Module) -> nn.Module:
    """The module, with its recurrent layers as ONNX operators; in place."""
    for name, child in part.named_children():
        if isinstance(child, nn.LSTM | nn.GRU):
            setattr(part, name, OnnxRecurrent(child))
        else:
            with_onnx_layers(child)
    return part


@contextmanager
def as_loops() -> Iterator[None]:
    """Within it torch.export takes recurrent layers as loops, and not as a step for each slice of the example."""
    from torch.export._patches import (
        register_gru_while_loop_decomposition,
        register_lstm_while_loop_decomposition,
    )

    with ExitStack() as stack:
        stack.enter_context(register_lstm_while_loop_decomposition())
        stack.enter_context(register_gru_while_loop_decomposition())
        yield
