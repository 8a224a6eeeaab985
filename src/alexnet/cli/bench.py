"""The verb bench: what this machine can do, and what limits it."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass, replace
from typing import Literal

from alexnet.cli.shared import DeviceOptions, Word, machine_of, parse, tell
from alexnet.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BenchOptions(DeviceOptions):
    """Rates of this machine from a JPEG file to a training step, what limits it, and how long the paper's 90 passes over
    1.28 million images would take. One to three minutes; nothing is kept.

    alexnet bench --precision bfloat16 --plan
    alexnet bench --plan --gpus 8 --link 25
    """

    network: Word = "alexnet_2012"
    """A network that reads 224 x 224 color images."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Number format of the training step."""
    batch_size: int = 128
    """Images in a step."""
    data: str | None = None
    """Read these images instead of drawn ones; prepared first if need be."""
    plan: bool = False
    """Also what preparing and storing ImageNet would take here and, with --gpus, a training step on several devices."""
    gpus: int | None = None
    """With --plan: on this many devices that share each batch, what a step would take, send and hold, in each layout. On a CPU
    they are ranks that share its cores."""
    link: float | None = None
    """With --gpus: GB/s that a device sends to the others while it receives as much; on a CPU by default what is measured."""


def bench(arguments: list[str]) -> int:
    options = parse(BenchOptions, "bench", arguments)
    if options.batch_size < 1:
        raise UsageError(f"--batch-size is {options.batch_size}; it must be at least 1")
    if options.gpus is not None and not options.plan:
        raise UsageError("--gpus needs --plan: it plans a job and starts nothing")
    if options.link is not None and options.gpus is None:
        raise UsageError("--link needs --plan --gpus N: it is the link between the devices of a plan")
    from alexnet.bench.forecast import measure
    from alexnet.bench.plan import check, plan
    from alexnet.core.console import say
    from alexnet.core.device import warn_of_emulation

    machine = machine_of(options)
    warn_of_emulation(machine.device, options.precision)
    if options.gpus is not None:
        check(options.network, options.gpus, options.link, machine)
    forecast = measure(
        options.network,
        machine,
        precision=options.precision,
        batch_size=options.batch_size,
        data=options.data,
        data_root=options.data_root,
        say=(lambda _stage: None) if options.json else (lambda stage: say(f"measuring: {stage}")),
    )
    finding = forecast.finding(storage=options.plan)
    if options.gpus is not None:
        if not options.json:
            say("measuring: what one of several devices computes")
        devices = plan(
            options.network,
            machine,
            precision=options.precision,
            batch_size=options.batch_size,
            devices=options.gpus,
            one_device=options.batch_size / forecast.step,
            link=options.link,
        )
        finding = replace(
            finding,
            body={**finding.body, "parallel": devices.to_json()},
            lines=[*finding.lines, "", devices.table()],
        )
    tell(finding, options)
    return 0
