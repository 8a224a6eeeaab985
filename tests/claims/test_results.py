"""Results are found in files and in published lines alike, and what is damaged is named."""

from __future__ import annotations

import json
import random

import pytest

from alexnet.claims.results import LINES, Results, name_of, write_lines
from alexnet.core.errors import AlexNetError


def result(arm: str, seed: int, key: str = "00ff", **fields) -> dict:
    return {"arm": arm, "scale": "cifar10", "seed": seed, "fingerprint": f"{key}-seed{seed}", **fields}


SOME = [
    result("base", 0, note="über\r\n\u2028 1e-3"),
    result("base", 2),
    result("base", 10),
    result("base", 1, key="aaaa"),
    result("tanh", 0, key="bbbb"),
]


def test_published_lines_are_what_the_files_were(tmp_path):
    own, published = Results(tmp_path / "own"), Results(tmp_path / "published")
    for made in SOME:
        own.add(made)
    (own.folder / "lrn.json").write_text("{}")  # the document of an experiment
    write_lines(published.folder, own.all().values())
    assert own.all() == published.all() == {name_of(made): made for made in SOME}
    for results in (own, published):
        assert results["base-00ff-seed10.json"] == SOME[2]
        assert results.find("00ff-seed2") == SOME[1]
        assert results.find("ff-seed2") is results.find("00ff-seed1") is None
        with pytest.raises(KeyError):
            results["base-00ff-seed1.json"]


def test_the_same_results_make_the_same_file_in_the_order_of_arms_and_seeds(tmp_path):
    mixed = random.Random(0).sample(SOME, len(SOME))
    write_lines(tmp_path / "a", SOME)
    write_lines(tmp_path / "b", mixed)
    text = (tmp_path / "a" / LINES).read_bytes()
    assert text == (tmp_path / "b" / LINES).read_bytes()
    assert [name_of(json.loads(line)) for line in text.splitlines()] == [name_of(made) for made in SOME]


def test_a_result_of_ones_own_comes_before_the_published_one(tmp_path):
    write_lines(tmp_path, SOME)
    Results(tmp_path).add(result("base", 2, mine=True))
    assert Results(tmp_path)["base-00ff-seed2.json"]["mine"]
    assert Results(tmp_path).find("00ff-seed2")["mine"]
    assert Results(tmp_path).all()["base-00ff-seed2.json"]["mine"]
    assert len(Results(tmp_path).all()) == len(SOME)


def test_a_name_leads_to_no_other_folder(tmp_path):
    Results(tmp_path / "other").add(SOME[0])
    with pytest.raises(KeyError):
        Results(tmp_path / "here")["../other/base-00ff-seed0.json"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"arm": "base", "fing', r"results\.jsonl, line 2: not valid JSON"),
        ("[]", r"results\.jsonl, line 2 is not a result of `alexnet claims run`"),
        ('{"arm": "base", "fingerprint": 3}', r"results\.jsonl, line 2 is not a result of `alexnet claims run`"),
        (json.dumps(SOME[0]), r"results\.jsonl, line 2 holds base-00ff-seed0\.json twice"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    (tmp_path / LINES).write_text(f"{json.dumps(SOME[0])}\n{line}\n")
    with pytest.raises(AlexNetError, match=message) as error:
        Results(tmp_path).find("bbbb-seed0")
    assert "\n" not in str(error.value)
