"""Models and snapshots for the tests of tying."""

import warnings

import pytest
import torch
from torch import nn

import pyparam


def names(source, **options):
    return [tie.names for tie in pyparam.ties(source, **options)]


def linears(count=4, size=8):
    torch.manual_seed(1)
    return nn.Sequential(*(nn.Linear(size, size) for _ in range(count)))


def stepped(net, optimizer):
    optimizer.zero_grad()
    net(torch.ones(2, 8)).sum().backward()
    optimizer.step()


class Zoo(nn.Module):
    """Every kind of tie, among parameters and buffers."""

    def __init__(self):
        super().__init__()
        buffer = torch.arange(48.0)
        self.a = nn.Parameter(buffer[:16].view(4, 4))
        self.transposed = nn.Parameter(self.a.data.t())
        self.slice = nn.Parameter(buffer[8:32])
        self.same_storage = nn.Parameter(self.a.data, requires_grad=False)
        self.same_object = self.a
        self.register_buffer("bytes", buffer.view(torch.uint8)[6:10])
        self.register_buffer("conjugate", torch.view_as_complex(buffer.view(24, 2)).conj()[2:4])
        self.register_buffer("windows", buffer[:6].unfold(0, 3, 1))
        self.register_buffer("expanded", buffer[:1].expand(5))
        self.alone = nn.Parameter(torch.ones(3))
        self.other = nn.Linear(4, 4)
        self.pair = nn.Linear(4, 4)
        self.pair.weight = self.other.weight
        self.pair.bias = nn.Parameter(self.other.bias.data)


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_values(model, values):
    return all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


def slice_model():
    model = nn.Module()
    buffer = torch.arange(8.0)
    model.whole, model.part = nn.Parameter(buffer), nn.Parameter(buffer[2:4])
    return model


def small_models():
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gpt2 = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=8)
        )
        bert = transformers.BertForMaskedLM(
            transformers.BertConfig(
                hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=20
            )
        )
    return [gpt2, bert]
