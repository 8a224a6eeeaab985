"""Networks in numbers: what the paper and torchvision's code say of each layer, and two networks aligned."""

from __future__ import annotations

from alexnet.evaluation.describe import describe, side_by_side, table
from alexnet.models import about_model, list_models


def test_the_table_has_what_the_paper_says_of_each_layer():
    stages = {stage["name"]: stage for stage in describe("alexnet_2012")["stages"]}
    names = ("kernel", "stride", "padding", "groups", "neurons")
    found = {name: tuple(stages[name][n] for n in names) for name in stages}
    # §3.5: 96 kernels of 11 x 11 with stride 4, 256 of 5 x 5, 384, 384 and 256 of 3 x 3; Figure 2: conv2, conv4 and conv5
    # read their own tower. Sizes 55, 27, 13 by Figure 2.
    assert found["conv1"] == (11, 4, 0, 1, 96 * 55 * 55)
    assert found["conv2"] == (5, 1, 2, 2, 186_624)
    assert found["conv3"] == (3, 1, 1, 1, 64_896)
    assert found["conv4"] == (3, 1, 1, 2, 64_896)
    assert found["conv5"] == (3, 1, 1, 2, 43_264)
    assert found["pool1"] == (3, 2, 0, None, 0)
    assert found["fc6"] == (None, None, None, 1, 4096)
    assert found["fc8"] == (None, None, None, 1, 1000)
    assert stages["conv1"]["overhang"] == 3
    assert "the last windows hang 3 pixels over" in table(describe("alexnet_2012"))
    assert "the last windows hang 1 pixel over" in table(describe("zfnet"))


def test_tables_fit_eighty_columns():
    for name in list_models():
        assert max(map(len, table(describe(name)).splitlines())) <= 80, name


def test_a_comparison_aligns_stages_by_name_and_marks_what_differs():
    lines = side_by_side(describe("alexnet_2012"), describe("alexnet_owt")).splitlines()
    rows = [line.split() for line in lines]
    assert ["!", "conv1", "output", "96x55x55", "64x55x55"] in rows
    assert ["padding", "0+3", "2"] in rows  # the overhang of 2012 against torchvision's padding=2
    assert ["<", "norm1", "output", "96x55x55", "-"] in rows
    assert ["=", "fc7", "output", "4096", "4096"] in rows
    assert ["!", "conv5", "groups", "2", "1"] in rows
    order = [row[1] for row in rows if row and row[0] in ("=", "!", "<", ">") and row[1] != "total"]
    assert order == "input conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 fc6 fc7 fc8".split()
    assert max(map(len, lines)) <= 80


def test_a_network_equals_itself_and_order_is_kept_where_it_differs():
    same = side_by_side(describe("lenet"), describe("lenet"))
    assert {line[0] for line in same.partition("\n\n")[0].splitlines()[1:]} == {"="}
    lines = side_by_side(describe("alexnet_caffe"), describe("caffenet")).splitlines()  # norm1 pool1 and pool1 norm1
    names = [line.split()[1] for line in lines if line[:1] in ("=", "!", "<", ">")]
    assert len(set(names) - {"total"}) == len(names) - 3  # each stage once; three totals


def test_each_network_has_a_sentence():
    sentences = [about_model(name) for name in list_models()]
    assert all(len(sentence.split()) >= 3 for sentence in sentences[:4])
    assert len(set(sentences)) == len(list_models())
