"""Frames of video files: the pixels that were drawn, at their times, upright; and files that are no sound video."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.core.errors import AlexNetError, ImageError, UsageError
from alexnet.data import video
from alexnet.data.decode import decode_image, kind_of_video
from alexnet.data.video import frames, is_video
from clips import LOSSLESS, REASON, panned, write_clip, write_sound

pytest.importorskip("av", reason=REASON)


@pytest.mark.parametrize("every", [1, 3])
def test_every_nth_frame_is_what_was_drawn_at_its_time(tmp_path: Path, every: int) -> None:
    drawn = panned("form-star", 10)
    clip = write_clip(tmp_path / "clip.mkv", drawn, LOSSLESS, rate=25)
    found = list(frames(clip, every))
    assert [frame.number for frame in found] == list(range(0, 10, every))
    assert [frame.seconds for frame in found] == pytest.approx([i / 25 for i in range(0, 10, every)], abs=0.0006)
    for frame in found:
        np.testing.assert_array_equal(np.asarray(frame.image), drawn[frame.number])
        assert (frame.image.mode, frame.of) == ("RGB", 10)


@pytest.mark.parametrize(
    "name", ["clip.mp4", "clip.avi", "clip.mov", "clip.mkv", "clip.ts", "clip.mpg", "clip.flv", "clip.wmv"]
)
def test_a_container_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    codec = {"clip.flv": "flv", "clip.wmv": "wmv2", "clip.mpg": "mpeg2video"}.get(name, "mpeg4")
    drawn = panned("color-red", 6)
    clip = write_clip(tmp_path / name, drawn, (codec, "yuv420p")).rename(tmp_path / "holiday.jpg")
    assert is_video(clip)
    found = list(frames(clip))
    assert len(found) == 6
    assert [frame.seconds for frame in found] == pytest.approx([i / 25 for i in range(6)], abs=0.002)
    for frame, pixels in zip(found, drawn, strict=True):  # a codec loses some, least in brightness
        assert np.abs(np.asarray(frame.image.convert("L"), int) - Image.fromarray(pixels).convert("L")).mean() < 6
    with pytest.raises(ImageError, match="unsupported format \\(video; save frames of it as JPEG\\)"):
        decode_image(clip)


def test_times_are_those_of_the_file_where_the_rate_varies(tmp_path: Path) -> None:
    times = [2000, 2040, 2300, 3000, 3001]
    clip = write_clip(tmp_path / "clip.mkv", panned("form-star", 5), LOSSLESS, times=times)
    assert [frame.seconds for frame in frames(clip)] == [0, 0.04, 0.3, 1.0, 1.001]


@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_a_frame_is_turned_as_the_file_says(tmp_path: Path, turn: int) -> None:
    drawn = panned("form-arrow", 2)
    clip = write_clip(tmp_path / "clip.mov", drawn, ("png", "rgb24"), turn=turn)
    (first, _) = frames(clip)
    np.testing.assert_array_equal(
        np.asarray(first.image), np.asarray(Image.fromarray(drawn[0]).rotate(turn, expand=True))
    )


def test_a_mirrored_frame_is_shown_as_the_matrix_says() -> None:
    # One step right in the file leads one step down on the screen, one step down leads one step right: a transposition.
    matrix = np.array([0, 65536, 0, 65536, 0, 0, 0, 0, 1 << 30], np.int32)
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for a, b, c, d, expected in (
        (0, 1, 1, 0, pixels.transpose(1, 0, 2)),
        (-1, 0, 0, 1, pixels[:, ::-1]),
        (1, 0, 0, -1, pixels[::-1]),
        (0, 0, 0, 0, pixels),
    ):
        matrix[[0, 1, 3, 4]] = np.array([a, b, c, d]) * 65536
        np.testing.assert_array_equal(video.turned(pixels, matrix.tobytes()), expected)


def test_pixels_that_are_not_square_are_made_square(tmp_path: Path) -> None:
    for aspect, size in ((Fraction(2), (64, 24)), (Fraction(1, 2), (32, 48)), (Fraction(100), (64, 48))):
        clip = write_clip(tmp_path / "clip.mp4", panned("form-star", 2), aspect=aspect)
        assert next(frames(clip)).image.size == size, aspect


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "clip.mov"])
def test_a_cut_file_is_truncated(tmp_path: Path, name: str) -> None:
    whole = write_clip(tmp_path / name, panned("form-star", 8)).read_bytes()
    if name == "clip.mp4":  # with what says where the pictures are in front, as files for the web have it
        clip = write_clip(tmp_path / name, panned("form-star", 8), options={"movflags": "faststart"})
    for share in (0.5, 0.9):
        clip = tmp_path / f"cut-{name}"
        clip.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ImageError, match=r"cut-clip\.\w+: truncated \([\d,]+ bytes, and more were written\)"):
            list(frames(clip))


def test_damage_is_found_where_it_is_and_nothing_is_made_up(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", panned("texture-grain", 12))
    content = bytearray(clip.read_bytes())
    middle = 2 * len(content) // 3
    content[middle : middle + 400] = bytes(400)
    clip.write_bytes(content)
    found = frames(clip)
    assert next(found).number == 0  # nothing behind it has been read
    with pytest.raises(ImageError) as error:
        list(found)
    assert (error.value.path, error.value.reason) == (str(clip), "damaged")


def test_what_is_no_video_is_one_clear_error(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "song.m4a")
    contents = {
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"only text\n" * 100, "unsupported format"),
        "list.mp4": (b"#EXTM3U\n#EXTINF:1,\nhttp://localhost/secret.ts\n", "unsupported format"),
        "script.mp4": (b"ffconcat version 1.0\nfile clip.mkv\n", "unsupported format"),
        "head.mp4": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "damaged"),
        "head.mkv": (b"\x1aE\xdf\xa3" + bytes(40), "damaged"),
        "head.avi": (b"RIFF\0\0\0\0AVI " + bytes(400), "damaged"),
        "head.mpg": (b"\0\0\1\xba" + bytes(400), "damaged"),
        "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported format"),
    }
    for name, (content, reason) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError) as error:
            list(frames(tmp_path / name))
        assert error.value.reason == reason, name
        assert is_video(tmp_path / name) == name.startswith("head.")
    with pytest.raises(ImageError, match=r"song\.m4a: unsupported format \(it holds no video"):
        list(frames(sound))
    with pytest.raises(ImageError, match="missing"):
        list(frames(tmp_path / "nowhere.mp4"))
    with pytest.raises(ImageError, match="not a regular file"):
        list(frames(tmp_path))
    with pytest.raises(UsageError, match="every is 0"):
        list(frames(sound, 0))
    assert not is_video(tmp_path)
    assert not is_video("a\0b")


def test_pictures_are_no_videos(tmp_path: Path) -> None:
    for fmt in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"):
        Image.fromarray(panned("form-star", 1)[0]).save(tmp_path / "clip.mp4", fmt)
        assert kind_of_video((tmp_path / "clip.mp4").read_bytes()[:512]) == "", fmt


def test_sizes_frames_and_time_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.mp4", panned("form-star", 5))
    for limit, value, message in (
        ("MAX_PIXELS", 64 * 48 - 1, "64 x 48 pixels; at most 3,071"),
        ("MAX_FRAMES", 4, "more than 4 frames"),
        ("MAX_FILE_BYTES", 1000, "bytes; at most 1,000"),
        ("MAX_SECONDS", -1.0, "longer than -1 s"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(video, limit, value)
            with pytest.raises(ImageError, match=f"too large .*{message}"):
                list(frames(clip))
    assert len(list(frames(clip))) == 5


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
def test_a_hostile_file_is_frames_or_one_error_and_nothing_is_printed(tmp_path: Path, name: str, capfd) -> None:
    content = write_clip(tmp_path / name, panned("form-star", 3, size=16)).read_bytes()
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(30):
        damaged = bytearray(content)
        for at in random.integers(12, len(content), 4):
            damaged[at] = random.integers(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            outcomes.add(len(list(frames(tmp_path / name))))
        except ImageError as error:
            outcomes.add(f"{error.reason} {len(str(error).splitlines())}")
    assert {"damaged 1"} < outcomes <= {0, 1, 2, 3, "damaged 1", "too large 1", "truncated 1", "unsupported format 1"}
    assert capfd.readouterr() == ("", "")


def test_without_pyav_or_with_one_that_crashes_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", panned("form-star", 2))
    monkeypatch.setattr("av.__version__", "17.1.0")
    with pytest.raises(AlexNetError, match=r'PyAV 18, and this is 17.1.0: pip install "alexnet\[video\]"'):
        list(frames(clip))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AlexNetError, match=r'pip install "alexnet\[video\]"'):
        list(frames(clip))
    assert is_video(clip)
