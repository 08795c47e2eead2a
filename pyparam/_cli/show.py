"""``pyparam show``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import torch
import typer

from pyparam._cli.fit import Columns, fitting
from pyparam._cli.mistake import Mistake, mistakes
from pyparam._cli.names import print_names
from pyparam._cli.options import Arguments, Exclude, Meta, Part, Select, Source, choice
from pyparam._cli.source import load
from pyparam._cli.terminal import working
from pyparam._inspect.inspector import inspect
from pyparam._view.memory import memory_of
from pyparam._view.text import COLUMNS, show_fitting, summarize

# What a narrow terminal does without, the least telling first.
_DROPPED = ("device", "dtype", "state", "bytes", "tensors", "type")


def show(
    source: Source,
    depth: Annotated[
        int | None, typer.Option("--depth", min=0, metavar="N", help="Levels to show.", show_default=False)
    ] = None,
    select: Select = None,
    exclude: Exclude = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    meta: Meta = False,
    arguments: Arguments = None,
    part: Part = None,
    buffers: Annotated[bool, typer.Option("--buffers", help="List buffers beside the parameters.")] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Print bytes by dtype, and what training with Adam takes.")
    ] = False,
    names: Annotated[
        bool,
        typer.Option("--names", help="List a file's names, types and shapes, also if it needs code to load."),
    ] = False,
    columns: Columns = None,
) -> None:
    """Prints the tree of a model, a line a module, with repeated blocks folded.

    Totals count shared storage once. Of a training checkpoint the model is told from the optimizer's state,
    averages and the rest.

    Exit status: 0, or 2 after a mistake.

    JSON: type and modules of the model, parameters and buffers (what it holds), shared (lists of names over
    one memory), rows (one a line, with name, last, count, depth, type, tensors and what it holds), parts (of
    a training checkpoint: kind, prefix, tensors, values, bytes) and facts (of a file); of the demo, net and
    mixture with these each. With --memory also memory (by_dtype, parameters, gradients, moments and total, in
    bytes). With --names a list with name, dtype, shape and nbytes of each tensor.

    \b
    Examples:
      pyparam show demo
      pyparam show model.safetensors --depth 2
      pyparam show last.ckpt --part model
      pyparam show whole_module.pt --names
      pyparam show model.safetensors --columns type,values,bytes
      pyparam show checkpoints/ --select "*.attn.*.weight"
      pyparam show torchvision.models:resnet50 --meta
      pyparam show mypackage.models:build --meta --arg layers=48 --arg width=4096
      pyparam show path/to/config.json --meta
      pyparam show mypackage.models:build --json | jq .parameters.unique
    """
    with mistakes():
        chosen = choice(select, exclude)
        if names:
            if columns is not None:
                raise Mistake("--columns chooses among the columns of the tree; --names prints a list")
            print_names(source, chosen, as_json)
            return
        options: dict[str, Any] = {"depth": depth, "select": chosen, "memory": memory}
        fit = fitting(columns, COLUMNS, _DROPPED)
        if source == "demo":
            _demo(as_json, meta, {**options, "buffers": buffers, "fit": fit})
            return
        with working(f"reading {source}"):
            loaded = inspect(load(source, meta=meta, arguments=arguments, part=part))
        if as_json:
            summary = summarize(loaded, select=chosen)
            extra = {"memory": memory_of(summary.outline).to_dict()} if memory else {}
            typer.echo(_json({**summary.to_dict(depth), **extra}))
        else:
            show_fitting(loaded, fit, buffers=buffers, **options)


def _json(value: object) -> str:
    return json.dumps(value, indent=2)


def _demo(as_json: bool, meta: bool, options: dict[str, Any]) -> None:
    from pyparam._cli.demo import mixture

    torch.manual_seed(1)
    net = load("demo", meta=meta)
    if as_json:
        models = {"net": net, "mixture": mixture()}
        made = {
            name: summarize(model, select=options["select"]).to_dict(options["depth"])
            for name, model in models.items()
        }
        typer.echo(_json(made))
        return

    typer.echo("A nested network: blocks of layers, and blocks of blocks\n")
    show_fitting(net, **options)
    if not meta:
        net(torch.rand(2, 4, dtype=torch.float32, device="cpu")).sum().backward()
        bias = inspect(net)[0][1][0].bias
        typer.echo("\nOne parameter of it, reached as the network is nested")
        typer.echo(f"inspect(net)[0][1][0].bias.data  ->  {bias.data}")
        typer.echo(f"inspect(net)[0][1][0].bias.grad  ->  {bias.grad}")
        same = inspect(net)["0.block 1.0.bias"] is bias
        typer.echo(f'inspect(net)["0.block 1.0.bias"] is the same object: {same}')
    typer.echo("\nA mixture of experts: 61 layers of 256 experts\n")
    with torch.device("meta" if meta else "cpu"):
        model = mixture()
    show_fitting(model, **options)
