"""The stack of a batch's slices: chunks lose and double none, and never mix two series as neighbours."""

import pytest
import torch

from ichseq.model.stack import in_chunks, series_spans, slice_spans, slices_of_series, with_neighbours

LENGTHS = [7, 1, 12, 3]
HU = torch.zeros(sum(LENGTHS), 4, 6)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5, 23, 100])
def test_chunks_hold_every_slice_once(size: int, single: bool) -> None:
    spans = series_spans(HU, torch.tensor(LENGTHS), None)
    spans = slice_spans(spans) if single else spans
    chunks = list(in_chunks(spans, size))
    assert [k for chunk in chunks for span in chunk for k in range(span.first, span.stop)] == list(range(23))
    counts = [sum(span.slices for span in chunk) for chunk in chunks]
    assert max(counts) <= size
    assert max(counts) - min(counts) <= 1
    for chunk in chunks:
        assert all(span.series_first <= span.first < span.stop <= span.series_stop for span in chunk)
        assert sum(slices_of_series(chunk)) == sum(span.slices for span in chunk)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("reach", [0, 1, 3, 50])
def test_neighbours_are_of_the_series_of_the_ends(reach: int, single: bool) -> None:
    spans = series_spans(HU, torch.tensor(LENGTHS), None)
    borders = {k: span.series for span in spans for k in range(span.first, span.stop)}
    spans = slice_spans(spans) if single else spans
    for chunk in in_chunks(spans, 4):
        first, stop = chunk[0].first, chunk[-1].stop
        expected = range(max(first - reach, borders[first][0]), min(stop + reach, borders[stop - 1][1]))
        seen = with_neighbours(chunk, spans, reach)
        assert [k for span in seen for k in range(span.first, span.stop)] == list(expected)
        series = [borders[k] for k in expected]
        by_series = [series.count(one) for one in dict.fromkeys(series)]
        assert slices_of_series(seen) == by_series


def test_a_span_knows_its_series_and_size() -> None:
    spans = series_spans(HU, torch.tensor(LENGTHS), [(4, 6), (3, 6), (4, 5), (2, 2)])
    assert [span.size for span in spans] == [(4, 6), (3, 6), (4, 5), (2, 2)]
    alone = slice_spans(spans)
    assert [span.number for span in alone] == list(range(23))
    assert alone[7].series == (7, 8)
    assert alone[9].series == (8, 20)
    assert {span.slices for span in alone} == {1}
