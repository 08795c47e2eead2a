"""Findings: healthy models of many families have no faults, fresh, trained, in half precision and saved."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import pyparam
from pyparam import init

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
TEXT = {**SMALL, "vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
FAMILIES = {
    "BertConfig": TEXT,
    "DistilBertConfig": {"dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 128, "vocab_size": 300},
    "DebertaV2Config": TEXT,
    "GPT2Config": {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 300, "bos_token_id": 1, "eos_token_id": 2},
    "GPTNeoXConfig": TEXT,
    "OPTConfig": {**TEXT, "ffn_dim": 128, "word_embed_proj_dim": 64},
    "BloomConfig": {"hidden_size": 64, "n_layer": 3, "n_head": 4, "vocab_size": 300},
    "LlamaConfig": {**TEXT, "num_key_value_heads": 2},
    "Qwen2Config": {**TEXT, "num_key_value_heads": 2},
    "Gemma2Config": {**TEXT, "num_key_value_heads": 2, "head_dim": 16},
    "PhiConfig": TEXT,
    "MixtralConfig": {**TEXT, "num_key_value_heads": 2, "num_local_experts": 4},
    "MambaConfig": {"hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 300},
    "T5Config": {"d_model": 64, "d_ff": 128, "num_layers": 3, "num_heads": 4, "d_kv": 16, "vocab_size": 300},
    "BartConfig": {
        "d_model": 64, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 300,
    },
    "WhisperConfig": {
        "d_model": 64, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 300,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    },
    "Wav2Vec2Config": {**SMALL, "vocab_size": 32, "conv_dim": (32, 32), "conv_kernel": (10, 3), "conv_stride": (5, 2),
                       "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
    "ViTConfig": SMALL,
    "DeiTConfig": SMALL,
    "Dinov2Config": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4},
    "SwinConfig": {"embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4]},
    "ConvNextConfig": {"hidden_sizes": [32, 64], "depths": [2, 2], "num_stages": 2},
    "ResNetConfig": {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [2, 2]},
    "MobileNetV2Config": {"depth_multiplier": 0.35},
    "CLIPConfig": {"text_config": {**TEXT, "max_position_embeddings": 20}, "vision_config": SMALL, "projection_dim": 32},
}  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 32, padding_idx=0)
        self.lstm = nn.LSTM(32, 48, 2, bidirectional=True)
        self.gru = nn.GRU(96, 48, 2)
        self.head = nn.Linear(48, 100)


class Spectral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 16, 3))
        self.linear = nn.utils.parametrizations.weight_norm(nn.Linear(32, 32))
        self.norm = nn.GroupNorm(4, 16)


OWN = {
    "transformer": lambda: nn.Transformer(64, 4, 3, 3, 128, batch_first=True),
    "encoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128), 4, nn.LayerNorm(64)),
    "recurrent": Recurrent,
    "parametrized": Spectral,
    "perceptron": lambda: nn.Sequential(*(m for _ in range(6) for m in (nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU()))),
    "convolutions": lambda: nn.Sequential(
        *(m for i in range(6) for m in (nn.Conv2d(8 * 2 ** (i // 2), 8 * 2 ** ((i + 1) // 2), 3), nn.BatchNorm2d(8 * 2 ** ((i + 1) // 2))))
    ),
}  # fmt: skip


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name in OWN:
        return OWN[name]()
    return transformers.AutoModel.from_config(getattr(transformers, name)(**FAMILIES[name]))


def faults(source: object) -> list[str]:
    return [str(found) for found in pyparam.findings(source) if found.is_fault]


def trained(model: nn.Module) -> nn.Module:
    """As after training: everything moved, by steps of Adam along random gradients."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(8):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    optimizer.zero_grad()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.1, 10)
            module.num_batches_tracked.fill_(8)
    return model


pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", [*OWN, *FAMILIES])
def test_healthy_models_have_no_faults(name, tmp_path):
    model = make(name)
    assert faults(model) == []
    assert faults(copy.deepcopy(model).bfloat16().state_dict()) == []
    assert faults(trained(model)) == []
    assert faults(model.state_dict()) == []
    pyparam.save_file(model, tmp_path / "model.safetensors")
    assert faults(tmp_path / "model.safetensors") == []


@pytest.mark.parametrize("name", ["encoder", "convolutions", "BertConfig"])
def test_healthy_training_checkpoints_have_no_faults(name, tmp_path):
    model = trained(make(name))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for step in range(30):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter) * 1e-6 / (1 + step)
        optimizer.step()
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "callbacks": {
            "ModelCheckpoint": {"kth_value": torch.tensor(float("inf")), "best": torch.tensor(1e9)}
        },
        "lr_schedulers": [{"last": torch.tensor(0.0)}],
        "epoch": 3,
    }
    torch.save(saved, tmp_path / "training.ckpt")
    assert faults(tmp_path / "training.ckpt") == []
    assert faults({"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()]}) == []


def test_state_of_an_optimizer_that_nobody_knows_is_no_weight() -> None:
    """Directions of LBFGS, preconditioners of others: any scale, any range, any number of zeros."""
    model = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
    optimizer = torch.optim.LBFGS(model.parameters())
    for i, parameter in enumerate(model.parameters()):
        optimizer.state[parameter] = {
            "direction": 10.0**i * torch.randn_like(parameter),
            "left": [torch.zeros(8)],
        }
    for source in (optimizer, optimizer.state_dict()):
        assert faults(source) == []
    next(iter(optimizer.state.values()))["left"][0][3] = math.nan
    assert [found.kind for found in pyparam.findings(optimizer)] == ["non-finite"]


def test_a_bias_that_softmax_cancels_is_no_fault() -> None:
    """Adam's relatives move a key's bias by what rounding leaves of its gradient."""
    model = nn.ModuleList(nn.MultiheadAttention(16, 4) for _ in range(3))
    for block in model:
        block.register_parameter("k_bias", nn.Parameter(1e-9 * torch.randn(16)))
        block.out_proj.bias = nn.Parameter(1e-9 * torch.randn(16))
        nn.init.normal_(block.in_proj_bias)
    assert faults(model) == []
    assert faults(model.half()) == []
    with torch.no_grad():
        model[1].in_proj_weight.mul_(1e-6)
    assert any("subnormal" in fault for fault in faults(model))


@pytest.mark.parametrize("name", ["perceptron", "convolutions"])
def test_a_model_made_on_meta_and_filled_is_healthy(name):
    with torch.device("meta"):
        model = make(name)
    init.initialize_(model, seed=0, device="cpu")
    assert faults(model) == []
