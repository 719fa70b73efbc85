"""A part of a long series' slices for the sequence part, and its answers put back to all of them."""


def chosen(counts: list[int], most: int) -> list[list[int]]:
    """The slices of each series that are read: all, or of more than `most` that many, evenly spaced, its ends among
    them.
    """
    return [[*range(n)] if n <= most else [round(k * (n - 1) / (most - 1)) for k in range(most)] for n in counts]


def rows_of(kept: list[list[int]], counts: list[int]) -> list[int]:
    """The chosen slices as rows of the stacked series."""
    return [first + k for first, of_one in zip(_firsts(counts), kept, strict=True) for k in of_one]


def nearest(kept: list[list[int]], counts: list[int]) -> list[int]:
    """For every row of the stacked series the number, among the chosen ones, of the nearest; of two the earlier."""
    found = []
    for first, of_one, n in zip(_firsts([len(one) for one in kept]), kept, counts, strict=True):
        here = 0
        for k in range(n):
            while here + 1 < len(of_one) and of_one[here + 1] - k < k - of_one[here]:
                here += 1
            found.append(first + here)
    return found


def _firsts(counts: list[int]) -> list[int]:
    return [sum(counts[:k]) for k in range(len(counts))]
