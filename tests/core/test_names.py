from __future__ import annotations

import json
import os

import pytest

from alexnet.cli.shared import print_json
from alexnet.core.errors import as_text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.jpg", "plain.jpg"),
        ("猫 \U0001f600 caf\u00e9\n", "猫 \U0001f600 caf\u00e9\n"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("\udcff\udc80\ud83d", r"\xff\x80\ud83d"),
    ],
)
def test_names_are_text_that_any_program_reads(name: str, text: str):
    assert as_text(name) == text
    as_text(name).encode()


def test_json_on_stdout_has_no_lone_surrogates(capsys: pytest.CaptureFixture[str]):
    odd = os.fsdecode(b"caf\xe9")
    print_json({odd: [odd, {"path": (odd, 1, None, True, 0.5)}], "cat": "猫"})
    document = json.loads(capsys.readouterr().out)
    assert document == {r"caf\xe9": [r"caf\xe9", {"path": [r"caf\xe9", 1, None, True, 0.5]}], "cat": "猫"}
    json.dumps(document, ensure_ascii=False).encode()
