"""The verb serve."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.cli.shared import ModelOptions, Word, check_folder, check_threads, check_workers, parse, print_json
from alexnet.core.errors import AlexNetError, UsageError, printable

if TYPE_CHECKING:
    from alexnet.page.worker import Ready


@dataclass(frozen=True, kw_only=True)
class ServeOptions(ModelOptions):
    """A page in your browser to look into a network, to teach it and to search with it. It is served to this machine alone,
    and ends with Ctrl-C.

    alexnet serve runs/mine

    alexnet serve models/trunk --data photos/ --index my.index

    alexnet serve runs/mine --export site/ --pictures cat.jpg dog.jpg
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    data: str | None = None
    """Packed directory, folder, archive, Parquet files, CSV or named set whose pictures show what a unit looks for; by
    default that of the run."""
    index: str | None = None
    """Folder that `alexnet index` wrote with this model, to search in."""
    keep: str | None = None
    """Folder in which classifiers that you teach are kept as model folders; by default the folder taught."""
    port: int = 2012
    """Number at the end of the address; 0 for any that is free."""
    host: str = "127.0.0.1"
    """Address to serve at; 0.0.0.0 serves everybody who can reach this machine, without a password."""
    check: bool = False
    """Start, ask for the page and an answer, and stop (exit 3 if they are wrong)."""
    export: str | None = None
    """Instead of serving, write what the page shows of a few pictures into this new folder: at most 30 MB of files that any
    web host or a USB stick shows without a server."""
    pictures: tuple[str, ...] = ()
    """With --export: the picture files to show, or folders of them; by default eight pictures of the data."""


def serve(arguments: list[str]) -> int:
    options = parse(ServeOptions, "serve", arguments)
    check_threads(options.threads)
    check_workers(options.workers)
    if options.keep is not None:
        check_folder(Path(options.keep), "--keep")
    if options.export is not None:
        return _export(options, options.export)
    if options.pictures:
        raise UsageError("--pictures are shown in an exported site: add --export, or choose them on the page")
    from alexnet import page

    failed: list[str] = []

    def ready(url: str, said: "Ready") -> bool:
        seconds = None
        if options.check:
            try:
                seconds = page.check(url)
            except AlexNetError as error:
                failed.append(str(error))
                return False
        if options.json:
            print_json({"address": url, "network": said.name, "classes": said.num_classes, "seconds": seconds})
        elif options.check:
            print(
                f"{printable(options.model)} ({said.name}) was served at {url} and answered in {seconds:.1f} s",
                flush=True,
            )
        else:
            print(f"{printable(options.model)} ({said.name}) at {url}", flush=True)
            print("Open this address in a browser on this machine; Ctrl-C ends it.", flush=True)
        return not options.check

    page.serve(
        options.model,
        data=options.data,
        index=options.index,
        host=options.host,
        port=options.port,
        keep=options.keep or page.KEEP,
        device=options.device,
        threads=options.threads,
        workers=options.workers,
        best=options.best,
        data_root=options.data_root,
        on_ready=ready,
    )
    if failed:
        from alexnet.cli.shared import complain

        complain(failed[0])
        return 3
    return 0


def _export(options: ServeOptions, out: str) -> int:
    for name in ("index", "keep", "port", "host", "check"):
        if getattr(options, name) != getattr(ServeOptions, name):
            raise UsageError(f"--{name} needs a server, and --export writes files without one; leave one of them out")
    check_folder(Path(out), "--export")
    from alexnet.page.site import require_free

    require_free(Path(out))
    from alexnet.page.export import export
    from alexnet.page.worker import Opening, open_room

    room = open_room(
        Opening(
            model=options.model,
            data=options.data,
            device=options.device,
            threads=options.threads,
            workers=options.workers,
            best=options.best,
            data_root=options.data_root,
        )
    )
    done = export(room, out, options.pictures)
    if options.json:
        print_json(vars(done))
        return 0
    print(f"{printable(out)}: {done.pictures} pictures and {done.units:,} units in {done.bytes / 1e6:.1f} MB")
    for clause in done.left_out:
        print(f"left out: {printable(clause)}")
    print("Open its file index.html in a browser, or put the folder on a web host.")
    return 0
