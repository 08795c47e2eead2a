"""Folders that a run or a library leaves: opened, or told which path in them to open."""

from __future__ import annotations

import io
import json
import os

import pytest
import torch
from safetensors.torch import save_file

import pyparam


def pipeline(path, components):
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30.0", **components}
    (path / "model_index.json").write_text(json.dumps(index))


def test_a_diffusers_pipeline_is_its_components(tmp_path):
    pipeline(
        tmp_path,
        {
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "safety_checker": [None, None],
        },
    )
    for name in ("scheduler", "text_encoder", "unet"):
        (tmp_path / name).mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")
    save_file({"a": torch.ones(2)}, tmp_path / "text_encoder" / "model.safetensors")
    for part, name in enumerate("bc"):
        file = f"diffusion_pytorch_model-0000{part + 1}-of-00002.safetensors"
        save_file({name: torch.full((3,), float(part)), f"{name}2": torch.zeros(1)}, tmp_path / "unet" / file)
    opened = pyparam.open(tmp_path)
    assert list(opened) == ["text_encoder.a", "unet.b", "unet.b2", "unet.c", "unet.c2"]
    assert opened["text_encoder.a"].tolist() == [1, 1]
    assert opened["unet.c"].tolist() == [1, 1, 1]
    assert opened.byte_range("unet.c").file.name.endswith("2-of-00002.safetensors")
    assert len(opened.files) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"model_index\.json is not an index of components: it is no object"),
        ("{", r"model_index\.json is not an index of components: Expecting"),
        ('{"../x": ["a", "B"], "unet": ["a", "B"]}', r"is a diffusers pipeline without weights"),
    ],
)
def test_a_pipeline_that_is_none(tmp_path, text, message):
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        pyparam.open(tmp_path)


LAYOUTS = {
    "DeepSpeed": (
        ["latest", "global_step10/mp_rank_00_model_states.pt", "global_step9/mp_rank_00_model_states.pt"],
        r"a DeepSpeed run.* open .*global_step9/mp_rank_00_model_states\.pt or .*global_step10/mp_rank_00",
    ),
    "Megatron": (
        ["latest_checkpointed_iteration.txt", "iter_0000100/mp_rank_00/model_optim_rng.pt"],
        r"a Megatron run; open .*iter_0000100/mp_rank_00/model_optim_rng\.pt$",
    ),
    "Megatron, distributed": (["iter_0000100/.metadata"], r"a Megatron run; open .*iter_0000100$"),
    "Lightning": (
        [f"lightning_logs/version_{i}/checkpoints/epoch=1.ckpt" for i in (2, 10, 9)],
        r"a Lightning run; open .*version_9/.* or .*version_10/checkpoints/epoch=1\.ckpt \(there are 3: ",
    ),
    "a cache": (
        ["models--a--b/refs/main", "models--a--b/snapshots/0123/config.json"],
        r"a cache of the Hugging Face hub; open .*models--a--b/snapshots/0123$",
    ),
    "Trainer": (
        ["checkpoint-500/model.safetensors"],
        r"a transformers Trainer's run; open .*checkpoint-500$",
    ),
    "Accelerate, in shards": (
        ["pytorch_model_fsdp_0/.metadata", "optimizer_0/.metadata", "scheduler.bin", "random_states_0.pkl"],
        r"a directory without a checkpoint .*a state that Accelerate saved in shards; open .*model_fsdp_0$",
    ),
    "Accelerate with DeepSpeed": (
        ["pytorch_model/mp_rank_00_model_states.pt", "scheduler.bin", "random_states_0.pkl"],
        r"a DeepSpeed run, .*; open .*pytorch_model/mp_rank_00_model_states\.pt$",
    ),
    "steps": (["step-7/.metadata"], r"a folder of distributed checkpoints; open .*step-7$"),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_the_message_tells_which_path_to_open(tmp_path, case):
    files, message = LAYOUTS[case]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=message):
        pyparam.open(tmp_path)


def test_a_schedule_alone_is_what_a_folder_holds(tmp_path):
    torch.save({"last_epoch": 3}, tmp_path / "scheduler.bin")
    assert pyparam.open(tmp_path).extras["last_epoch"] == 3


def test_a_config_without_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    words = r"A config\.json describes a model without its weights: pyparam show --meta builds that$"
    with pytest.raises(ValueError, match=rf"is a directory without a checkpoint .*\. {words}"):
        pyparam.open(tmp_path)
    with pytest.raises(ValueError, match=rf"has no weight_map from names to files\. {words}"):
        pyparam.open(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"hidden_size": 4}')
    with pytest.raises(ValueError, match=r"\*\.gguf\)$"):
        pyparam.open(tmp_path)


def test_a_folder_of_ranks_files(tmp_path):
    for rank in range(2):
        (tmp_path / f"mp_rank_0{rank}_model_states.pt").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"holds several checkpoints .*: open one of them\. It is a DeepSpeed run"
    ):
        pyparam.open(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes in folders")
@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "model.safetensors.index.json",
        "shard-00001-model-00001-of-00001.safetensors",
        "model-00001-of-00001.gguf",
        ".metadata",
        "model_index.json",
    ],
)
def test_a_pipe_in_a_folder_is_not_waited_for(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=r"is a directory without a checkpoint"):
        pyparam.open(tmp_path)
    with pytest.raises(ValueError, match=r"is neither a file nor a directory"):
        pyparam.open(tmp_path / name)
    for beside in ("config.json", "trainer_state.json"):
        os.mkfifo(tmp_path / beside)
    save_file({"l.qweight": torch.zeros(2, dtype=torch.int32)}, tmp_path / "w.safetensors")
    out = io.StringIO()
    pyparam.show(tmp_path, file=out)
    assert "2 values in 1 parameter" in out.getvalue()


def test_settings_of_an_adapter(tmp_path):
    name = "base_model.model.layers.0.q_proj.lora_A.weight"
    save_file({name: torch.ones(2, 3)}, tmp_path / "adapter_model.safetensors")
    said = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 8,
        "use_dora": False,
        "base_model_name_or_path": "org/\x1b[2J" + "x" * 200,
        "target_modules": ["v_proj", "q_proj"],
        "modules_to_save": None,
        "rank_pattern": {"a": 1},
    }
    for text, wanted in (
        (json.dumps(said), "adapter: peft_type LORA, r 2, lora_alpha 8, target_modules q_proj v_proj, "),
        ("[]", None),
        ("{", None),
    ):
        (tmp_path / "adapter_config.json").write_text(text)
        for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
            out = io.StringIO()
            pyparam.show(path, file=out)
            lines = [line for line in out.getvalue().splitlines() if line.startswith("adapter: ")]
            assert "\x1b" not in out.getvalue()
            assert bool(lines) == bool(wanted)
            assert wanted is None or (lines[0].startswith(wanted) and lines[0].endswith("x…"))


@pytest.mark.filterwarnings("ignore")  # of the libraries among themselves
def test_what_peft_and_transformers_write(tmp_path, monkeypatch):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    base = transformers.LlamaForCausalLM(config)
    weights = {name: value.clone() for name, value in base.state_dict().items()}
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"]))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)
    model.save_pretrained(tmp_path / "safe")
    model.save_pretrained(tmp_path / "bin", safe_serialization=False)
    assert len(pyparam.open(tmp_path / "safe")) == 4
    assert pyparam.compare(tmp_path / "safe", tmp_path / "bin").equal
    out = io.StringIO()
    pyparam.show(tmp_path / "bin", file=out)
    assert "adapter: peft_type LORA, r 2, lora_alpha 4, target_modules q_proj v_proj" in out.getvalue()

    apart = {name: value.clone() for name, value in model.state_dict().items()}
    found = pyparam.compare(apart, weights, rename_a="base_model.model.")
    assert {one.note for one in found.structure} == {"a LoRA adapter beside its weight, not merged"}
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    found = pyparam.compare(apart, tmp_path / "merged", rename_a="base_model.model.")
    assert [one.note for one in found.structure] == ["a LoRA adapter merged with scale 2"] * 2
    assert not found.changed()
    assert set(found.missing) == {name for one in found.structure for name in one.a}


@pytest.mark.filterwarnings("ignore")
def test_what_diffusers_writes(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    pipeline = diffusers.DDPMPipeline(model, diffusers.DDPMScheduler())
    kinds = {
        "whole": {},
        "bin": {"safe_serialization": False},
        "shards": {"max_shard_size": "20KB"},
        "fp16": {"variant": "fp16"},
        "fp16_shards": {"variant": "fp16", "max_shard_size": "20KB"},
    }
    expected = {f"unet.{name}": value for name, value in model.state_dict().items()}
    for kind, options in kinds.items():
        pipeline.save_pretrained(tmp_path / kind, **options)
        opened = pyparam.open(tmp_path / kind)
        assert (len(opened.files) > 1) == ("max_shard_size" in options)
        assert pyparam.compare(opened, expected).equal
