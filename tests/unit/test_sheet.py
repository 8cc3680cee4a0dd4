"""The picture sheet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unlearning_core.reports import sheet
from unlearning_core.reports.sheet import MARGIN, SENTENCE_LINE, TITLE, SheetRow, colour_heat, picture_sheet

RED, GREEN, BLUE = (torch.eye(3)[channel] for channel in range(3))


def row(
    forget: bool,
    prompt: str = "a frog",
    size: tuple[int, int] = (128, 128),
    base: Tensor = RED,
    unlearned: Tensor = GREEN,
) -> SheetRow:
    plain = torch.ones(*size, 3)
    return SheetRow(prompt, 7, plain * base, plain * unlearned, torch.zeros(size), 0.123, forget)


def pixels_of(picture: Tensor, colour: Tensor) -> Tensor:
    """Mask [H, W] of the pixels of exactly that colour."""
    return (picture[0] == colour).all(-1)


def test_base_unlearned_and_heat_stand_side_by_side_upscaled() -> None:
    picture = picture_sheet([row(forget=True)])
    assert picture.shape[0] == 1
    assert picture.min() >= 0 and picture.max() <= 1
    lefts = []
    for colour in (RED, GREEN, torch.tensor(sheet.INFERNO[0]) / 255):
        rows, columns = pixels_of(picture, colour)[70:].nonzero().unbind(1)
        assert len(rows) >= 192 * 192
        lefts.append(columns.min().item())
    assert lefts == [28, 28 + 192 + 6, 28 + 2 * (192 + 6)]


def test_forget_rows_come_first() -> None:
    picture = picture_sheet([row(forget=False, base=BLUE), row(forget=True, base=RED)])
    bottom = pixels_of(picture, RED).nonzero()[:, 0].max()
    top = pixels_of(picture, BLUE).nonzero()[:, 0].min()
    assert bottom < top


def test_many_rows_stand_in_two_columns() -> None:
    four, five = (picture_sheet([row(forget=False)] * count) for count in (4, 5))
    assert five.shape[2] > 1.9 * four.shape[2]
    assert five.shape[1] < four.shape[1]
    assert pixels_of(five, RED).sum() == 5 * 192 * 192


def test_every_caption_fits_beside_its_distance() -> None:
    """A long prompt is cut, so the sheet has the same paper right of the last column as with a short one."""
    long, short = (picture_sheet([row(forget=True, prompt=text)]) for text in ("a very long prompt\n" * 50, "short"))
    assert long.shape == short.shape
    caption = slice(-60, None)
    assert not torch.equal(long[0, caption, :400], short[0, caption, :400])
    assert torch.equal(long[0, caption, -120:], short[0, caption, -120:])


@pytest.mark.parametrize(
    ("size", "drawn"), [((128, 96), (192, 144)), ((256, 256), (256, 256)), ((1024, 512), (384, 192))]
)
def test_pictures_keep_their_shape(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    """The height and width that the base picture covers."""
    rows, columns = pixels_of(picture_sheet([row(forget=True, size=size)]), RED).nonzero().unbind(1)
    assert [int(place.max() - place.min()) + 1 for place in (rows, columns)] == list(drawn)


def test_heat_colours_rise_in_lightness_over_a_fixed_range() -> None:
    ramp = colour_heat(torch.linspace(0, sheet.HEAT_RANGE, 100)[None])
    luma = ramp[0] @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert (luma.diff() > 0).all()
    # A vector unit may round the last of the even steps: 1e-7 of the range.
    torch.testing.assert_close(colour_heat(torch.tensor([[5.0]])), ramp[:, -1:], rtol=0, atol=1e-6)


def test_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one prompt and seed"):
        picture_sheet([])


def test_sentences_stand_above_the_rows_and_within_the_sheet() -> None:
    bare = picture_sheet([row(forget=True)])
    told = picture_sheet([row(forget=True)], ["'cat face' is gone in 100% of 8 pictures.", "Others moved. " * 20])
    assert told.shape[2] == bare.shape[2] and told.shape[1] > bare.shape[1] + 3 * SENTENCE_LINE
    above = told[0, : told.shape[1] - bare.shape[1] + TITLE]
    assert (above[:, -MARGIN:] == told[0, 0, 0]).all()
