"""Pictures in another light: arithmetic on single pixels, and errors that are counted on what was lit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage.color import rgb2xyz

from alexnet.claims.laboratory import counts_of, evaluate, plain_result
from alexnet.claims.light import INTENSITIES, LOCUS, Lit, gains, relit, under_other_lights
from alexnet.claims.measures import MEASURES
from alexnet.claims.scales import find_scale
from alexnet.evaluation.predict import load

SMOKE = find_scale("smoke").network


def test_half_the_light_is_half_in_linear_light():
    # 188 is ((188 / 255 + 0.055) / 1.055) ^ 2.4 = 0.5029 of white; half of it 0.2514, which is
    # 255 (1.055 * 0.2514 ^ (1 / 2.4) - 0.055) = 137.3. Twice 0.5029 is beyond white. 5 / 255 / 12.92 is in the straight part.
    pixels_BSSC = np.array([[[[188, 188, 188], [5, 255, 0]]]], dtype=np.uint8)
    assert relit(pixels_BSSC, np.full(3, 0.5)).tolist() == [[[[137, 137, 137], [2, 188, 0]]]]
    assert relit(pixels_BSSC, np.array([2.0, 1.0, 0.5])).tolist() == [[[[255, 188, 137], [10, 255, 0]]]]


def test_the_light_that_was_there_changes_nothing():
    pixels_BSSC = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    np.testing.assert_array_equal(relit(pixels_BSSC, gains(6500)), pixels_BSSC)


@pytest.mark.parametrize("kelvin", LOCUS)
def test_a_white_wall_gets_the_color_of_the_black_body(kelvin):
    """By another program's way from sRGB to CIE XYZ; 7 % of the light, so that no channel is beyond white. The wall's own white
    is that of daylight, which is a little greener than a black body's."""
    value = np.uint8(75)
    lit_C = relit(np.full((1, 1, 1, 3), value, np.uint8), gains(kelvin))[0, 0, 0]
    wall_XYZ, lit_XYZ = rgb2xyz(np.full(3, value)), rgb2xyz(lit_C)
    assert lit_XYZ[1] == pytest.approx(wall_XYZ[1], rel=0.03)  # as bright
    chromaticity = lit_XYZ[:2] / lit_XYZ.sum()
    assert chromaticity == pytest.approx(LOCUS[kelvin], abs=0.007)
    # Kim et al. 2002: x of a black body as a polynomial of 1,000 / T.
    t = 1000 / kelvin
    terms = (
        (-0.2661239, -0.2343589, 0.8776956, 0.179910)
        if kelvin <= 4000
        else (-3.0258469, 2.1070379, 0.2226347, 0.240390)
    )
    assert LOCUS[kelvin][0] == pytest.approx(np.polyval(terms, t), abs=0.001)


def test_errors_are_those_of_the_lit_images(lab):
    config = replace(SMOKE, epochs=1)
    plain_result(lab, config)
    out, data = lab.run_folder(config), lab.open_data(config)
    result = under_other_lights(lab, config, load(out))
    split = data.split(data.held_out)
    pixels = split.read(np.arange(len(split)))
    dark = Lit(split, np.full(3, INTENSITIES[0]))
    np.testing.assert_array_equal(dark.read(np.arange(len(split))), relit(pixels, np.full(3, 0.25)))
    assert result["lights"]["intensity"]["x 0.25"] == counts_of(evaluate(lab, config, data, out, dark))
    assert result["views"]["1"] == counts_of(evaluate(lab, config, data, out, split))
    assert result["lights"]["intensity"]["x 0.25"]["loss_nats"] != result["views"]["1"]["loss_nats"]


def test_the_measures_are_means_over_the_lights_of_a_kind():
    def errors(*shares: float) -> dict:
        return {str(i): {"top1_error": share} for i, share in enumerate(shares)}

    result = {
        "views": {"1": {"top1_error": 0.2}},
        "lights": {"color": errors(0.3, 0.3, 0.6), "intensity": errors(0.1, 0.4)},
    }
    found = {name: MEASURES[name](result) for name in ("error_by_color", "rise_by_color", "rise_by_intensity")}
    assert found == {
        "error_by_color": pytest.approx(0.4),
        "rise_by_color": pytest.approx(0.2),
        "rise_by_intensity": pytest.approx(0.05),
    }
