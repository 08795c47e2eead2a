"""Makes anew what the documentation shows of a screen: ``make pictures``.

Terminals, and the help on the page of the command line, are the commands themselves, run here, so that tests
can tell whether they still show what is printed. Pages are photographed by Chromium.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from torch import nn

import pyparam
from pyparam._cli import app

DOCS = Path(__file__).resolve().parent
WIDTH = 100


# --- terminals ----------------------------------------------------------------------------------------------

TERMINALS = {
    "verbs/show.svg": "pyparam show last.pt",
    "verbs/measure.svg": "pyparam stats broken.pt",
    "verbs/findings.svg": "pyparam check broken.pt",
    "verbs/compare.svg": "pyparam compare before.pt after.pt --worst 4",
    "verbs/ties.svg": "pyparam ties after.pt",
    "verbs/spectrum.svg": "pyparam spectrum after.pt -k 2",
}


def decoder() -> nn.Module:
    """Three blocks, an embedding, and a head that is tied to it; the same values on every machine."""
    block = {"norm": nn.LayerNorm, "q_proj": nn.Linear, "o_proj": nn.Linear}
    sizes = {"norm": (64,), "q_proj": (64, 64), "o_proj": (64, 64)}
    model = nn.Module()
    model.embed = nn.Embedding(1000, 64)
    model.layers = nn.ModuleList(
        nn.ModuleDict({name: kind(*sizes[name]) for name, kind in block.items()}) for _ in range(3)
    )
    model.head = nn.Linear(64, 1000, bias=False)
    model.head.weight = model.embed.weight
    pyparam.init.initialize_(model, seed=1)
    return model


def write_files(folder: Path) -> None:
    """The checkpoints that the terminals' commands name."""
    model = decoder()
    torch.save(model.state_dict(), folder / "before.pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sum(p.square().sum() for p in model.parameters()).backward()
    optimizer.step()
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save(saved, folder / "last.pt")
    with torch.no_grad():
        model.layers[1]["q_proj"].weight.mul_(1.5)
    torch.save(model.state_dict(), folder / "after.pt")
    with torch.no_grad():
        model.layers[0]["q_proj"].bias[3] = torch.nan
        model.layers[2]["o_proj"].weight.zero_()
    torch.save(model.state_dict(), folder / "broken.pt")


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def printed(command: str, folder: Path) -> Text:
    """What a terminal shows after a command: the line itself, and what it prints, in its colours."""
    screen = Screen()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    terminal = {**kept, "COLUMNS": str(WIDTH), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with (
        inside(folder),
        mock.patch.dict(os.environ, terminal, clear=True),
        contextlib.redirect_stdout(screen),
        contextlib.suppress(SystemExit),
    ):
        app(shlex.split(command)[1:], prog_name="pyparam")
    return Text.from_ansi(f"$ {command}\n{screen.getvalue()}".rstrip("\n"))


# rich's own has a border of a window, and asks a server for its font.
SVG = """\
<svg class="rich-terminal" viewBox="0 0 WIDE HIGH" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
<rect fill="#14171a" width="WIDE" height="HIGH" rx="8"/>
<g transform="translate(9, 9)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def svg(text: Text) -> str:
    lines = text.split("\n")
    width = max(line.cell_len for line in lines)
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(text, soft_wrap=True, highlight=False)
    # rich's cells, with a margin of 9.
    size = {"WIDE": f"{12.2 * width + 18:.1f}", "HIGH": f"{24.4 * len(lines) + 18:.1f}"}
    template = SVG.replace("WIDE", size["WIDE"]).replace("HIGH", size["HIGH"])
    made = console.export_svg(code_format=template, unique_id="terminal", theme=MONOKAI)
    return "\n".join(line.rstrip() for line in made.splitlines()) + "\n"


def with_help(page: str) -> str:
    """The page of the command line with each command's help as it is now."""

    def section(found: re.Match[str]) -> str:
        return f"{found[1]}```text\n{help_of(found[2])}\n```\n"

    return re.sub(r"(^## pyparam (\w+)\n\n)```text\n.*?^```\n", section, page, flags=re.MULTILINE | re.DOTALL)


def help_of(command: str) -> str:
    _, _, told = printed(f"pyparam {command} --help", DOCS).plain.partition("\n")
    return "\n".join(line.rstrip() for line in told.splitlines())


# --- figures ------------------------------------------------------------------------------------------------


def trained() -> tuple[nn.Module, pyparam.Monitor]:
    """As on the page of Monitor: a learning rate that leaps, and a layer that is frozen by mistake."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 8))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    with pyparam.Monitor(net, every=10, spectral=True, noise=True).attach(optimizer) as monitor:
        for step in range(300):
            optimizer.param_groups[0]["lr"] = 3e-2 if 120 <= step < 130 else 1e-3
            if step == 200:
                net[0].requires_grad_(False)
            x = torch.randn(64, 8)
            optimizer.zero_grad()
            (net(x) - x.roll(1, 1)).square().mean().backward()
            optimizer.step()
    return net, monitor


def filled(*layers: nn.Module) -> nn.Sequential:
    net = nn.Sequential(*layers)
    pyparam.init.initialize_(net, seed=1)
    return net


def two_layers() -> nn.Sequential:
    return filled(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))


def twelve_blocks() -> pyparam.Stats:
    blocks = nn.ModuleList(
        nn.ModuleDict({"q_proj": nn.Linear(64, 64), "norm": nn.LayerNorm(64)}) for _ in range(12)
    )
    pyparam.init.initialize_(blocks, seed=1)
    blocks[7]["q_proj"].weight.data.mul_(20)
    return pyparam.measure(blocks).by("role")


def outgrown() -> nn.Sequential:
    net = filled(nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, 10))
    with torch.no_grad():
        net[0].weight += 0.02 * torch.ones(300, 400)
    return net


FIGURES: dict[str, Callable[[], object]] = {
    "verbs/plot.png": lambda: pyparam.plot(two_layers()),
    "verbs/plot_norms.png": lambda: pyparam.plot(decoder(), "norms"),
    "verbs/plot_tree.png": lambda: pyparam.plot(decoder(), "tree"),
    "verbs/roles.png": lambda: pyparam.plot(twelve_blocks()),
    "verbs/singular_values.png": lambda: pyparam.plot(outgrown(), "spectrum"),
    "verbs/monitor.png": lambda: pyparam.plot(trained()[1], "heat"),
}


# --- pages --------------------------------------------------------------------------------------------------


def faults(path: Path) -> None:
    from pyparam._cli.demo import planted

    pyparam.report(planted(), path, title="The demo network, with faults")


def training(path: Path) -> None:
    net, monitor = trained()
    title = "300 steps, a leap and a frozen layer"
    pyparam.report(net, path, history=monitor.history, title=title)


def notebook(path: Path) -> None:
    net = two_layers()
    shown = (pyparam.inspect(net), pyparam.measure(net, histogram=True))
    cells = "".join(f"<p>{one._repr_html_()}</p>" for one in shown)
    head = "<!doctype html><meta charset=utf-8><body style='font: 14px sans-serif'>"
    path.write_text(head + cells, encoding="utf-8")


PAGES: dict[str, tuple[Callable[[Path], None], int, int]] = {
    "verbs/report.png": (faults, 1200, 900),
    "verbs/report_training.png": (training, 1200, 900),
    "verbs/notebook.png": (notebook, 660, 285),
}


def photograph(page: Path, picture: Path, width: int, height: int) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit(f"{picture.name} is photographed by Chromium, which is not there")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000"]
    size = [f"--window-size={width},{height}", f"--screenshot={picture}"]
    subprocess.run([browser, *flags, *size, page.as_uri()], check=True, capture_output=True)


def shrink(picture: Path) -> None:
    """Few colours take a third of the bytes, and all that is drawn has few."""
    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder)
        for path, command in TERMINALS.items():
            (DOCS / path).write_text(svg(printed(command, folder)), encoding="utf-8")
        page = DOCS / "cli.md"
        page.write_text(with_help(page.read_text(encoding="utf-8")), encoding="utf-8")
        for path, draw in FIGURES.items():
            draw().savefig(DOCS / path, dpi=110, metadata={"Software": None})
        for path, (write, width, height) in PAGES.items():
            write(folder / "page.html")
            photograph(folder / "page.html", DOCS / path, width, height)
        for path in (*FIGURES, *PAGES):
            shrink(DOCS / path)


if __name__ == "__main__":
    main()
