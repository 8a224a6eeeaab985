"""The verb predict: what a trained network answers to pictures and videos."""

# No `from __future__ import annotations`: tyro must see the types of options.
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alexnet.cli.shared import (
    ModelOptions,
    Word,
    Words,
    check_file,
    complain,
    describe,
    inert,
    load_model,
    machine_of,
    parse,
    print_json,
)
from alexnet.core.errors import ImageError, UsageError, printable

if TYPE_CHECKING:
    from alexnet.core.device import Machine
    from alexnet.evaluation.predict import Answer, Prediction, Predictor
    from alexnet.evaluation.video import VideoPrediction


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ModelOptions):
    """The most probable classes of images of any size, and of a video over time. A file that cannot be read is reported, the
    others are answered (exit 4).

    alexnet predict runs/mine cat.jpg holiday/ --views 10

    alexnet predict runs/mine clip.mp4 --every 5 --picture time.png
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    images: Words
    """Files, folders, or - for standard input. A file may be a video."""
    views: str = "1"
    """1 (center), 10 (the paper's ten views) or random:K crops of the whole image, averaged."""
    top: int = 5
    """Classes to show."""
    every: int | None = None
    """Ask every N-th frame of a video; by default each."""
    picture: str | None = None
    """Draw the answer to a video over time into this PNG file."""
    csv: bool = False
    """Rows path,rank,class,probability on stdout; with a video also seconds, and its answers averaged over 32 frames."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Number format to compute in."""


def predict(arguments: list[str]) -> int:
    options = parse(PredictOptions, "predict", arguments)
    if not options.images:
        raise UsageError("predict needs images after the model: files, folders, or - for standard input")
    if options.top < 1:
        raise UsageError(f"--top is {options.top}; it must be at least 1")
    if options.csv and options.json:
        raise UsageError("--csv and --json are two forms of one output; give one of them")
    if options.every is not None and options.every < 1:
        raise UsageError(f"--every is {options.every}; it must be at least 1")
    check_file(options.picture, "--picture")
    videos = _videos(options)
    machine = machine_of(options)
    predictor = load_model(options, machine)
    state = {} if predictor.state is None else {"state": predictor.state.record()}
    faults, documents = 0, []
    if options.csv:
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["path", "rank", "class", "probability", *(["seconds"] if videos else [])])
    for prediction, video in _answered(options, predictor, videos, machine):
        if prediction.error is not None:
            faults += 1
            complain(describe(prediction.error))
        if video is not None and options.picture:
            _draw(video, Path(options.picture))
        if options.json:
            answers = [{"class": a.name, "label": a.label, "probability": a.probability} for a in prediction.answers]
            error = {"reason": prediction.error.reason, "detail": prediction.error.detail} if prediction.error else None
            document = {"path": prediction.path, "predictions": answers, "error": error, **state}
            over_time = {} if video is None else {"summary": video.summary(), "frames": video.rows(options.top)}
            documents.append(document | over_time)
        elif options.csv:
            for timed, seconds in _timed(prediction, video, options.top):
                for rank, a in enumerate(timed, start=1):
                    row = [inert(prediction.path), rank, inert(a.name), f"{a.probability:.6f}"]
                    writer.writerow([*row, seconds] if videos else row)
        elif prediction.error is None:
            print(printable(prediction.path))
            width = max(len(printable(a.name)) for a in prediction.answers)
            for a in prediction.answers:
                print(f"  {printable(a.name):<{width}} {a.probability:6.1%} {'█' * round(30 * a.probability)}")
            for line in [] if video is None else video.lines():
                print(f"  {printable(line)}")
            if video is not None and options.picture:
                print(f"in {printable(options.picture)}")
    if options.json:
        print_json(documents)
    return 4 if faults else 0


def _videos(options: PredictOptions) -> frozenset[str]:
    """Which of the files are videos. :class:`UsageError` for options that do not go with what is named."""
    from alexnet.data.video import is_video, require_pyav
    from alexnet.evaluation.views import CENTER, parse_views

    named = [file for file in options.images if is_video(file)]
    if named:
        require_pyav()
        if parse_views(options.views) != CENTER:
            raise UsageError(
                f"--views {printable(options.views)} is for pictures, and {printable(named[0])} is a video, which is answered "
                "by the center of its frames; leave --views out"
            )
        if options.picture and len(named) > 1:
            raise UsageError(f"--picture draws one video, and {len(named)} are named; name one of them")
    elif all(map(_may_be_pictures, options.images)):
        for option, value in (("--every", options.every), ("--picture", options.picture)):
            if value is not None:
                raise UsageError(f"{option} is for a video, and {printable(options.images[0])} is none; leave it out")
    return frozenset(named)


def _may_be_pictures(file: str) -> bool:
    """Whether this is standard input, a folder, or a file that begins like an image; of others decoding says what is wrong."""
    from alexnet.data.decode import looks_like_image, open_file

    try:
        if file == "-" or os.path.isdir(file):  # noqa: PTH112  # a name that is too long is no error of this
            return True
        with open_file(file, file) as opened:
            return looks_like_image(opened.read(32))
    except ImageError:
        return False


def _answered(
    options: PredictOptions, predictor: "Predictor", videos: frozenset[str], machine: "Machine"
) -> "Iterator[tuple[Prediction, VideoPrediction | None]]":
    """The answers in the order of the files; of a video also those over time."""
    from alexnet.core.console import Bar
    from alexnet.evaluation.predict import Prediction
    from alexnet.evaluation.video import predict_video

    for are_videos, files in groupby(options.images, key=videos.__contains__):
        if not are_videos:
            pictures = predictor.predict(iter([*files]), options.views, options.top, workers=machine.workers)
            yield from ((prediction, None) for prediction in pictures)
            continue
        for file in files:
            try:
                with Bar(f"predict {printable(Path(file).name)}", 1, "frames", quiet=machine.quiet) as bar:
                    video = predict_video(predictor, file, options.every or 1, progress=bar)
            except ImageError as error:
                yield Prediction(file, (), error), None
            else:
                yield Prediction(file, video.answers(video.overall_K, options.top)), video


def _timed(
    prediction: "Prediction", video: "VideoPrediction | None", top: int
) -> "Iterator[tuple[Sequence[Answer], str]]":
    """The answers of a picture, or the averaged ones of a video with their times."""
    if video is None:
        yield prediction.answers, ""
        return
    for averaged_K, seconds in zip(video.averaged_NK, video.seconds_N, strict=True):
        yield video.answers(averaged_K, top), f"{seconds:.3f}"


def _draw(video: "VideoPrediction", path: Path) -> None:
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.motion import draw_motion

    figure = draw_motion(
        Path(video.path).name,
        video.seconds_N,
        video.probability_NK,
        video.averaged_NK,
        video.classes,
        video.similarity_N,
        video.summary()["steadiness"],
        video.layer,
        video.summary()["window"],
    )
    save_pictures(path.parent, {path.name: figure})
