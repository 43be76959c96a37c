# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The 43 classes of BigEarthNet, of CORINE Land Cover level 3, and the 19 made of them.

Numbers and groups are those of the publisher's ``label_indices.json`` (Sumbul et al., "BigEarthNet-
MM", IEEE GRSM 2021, arXiv 2105.07921, table 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmrsfm.errors import DataError

_AGRICULTURE = (
    'Land principally occupied by agriculture, with significant areas of natural vegetation'
)
CLASSES_43 = (
    'Continuous urban fabric', 'Discontinuous urban fabric', 'Industrial or commercial units',
    'Road and rail networks and associated land', 'Port areas', 'Airports',
    'Mineral extraction sites', 'Dump sites', 'Construction sites', 'Green urban areas',
    'Sport and leisure facilities', 'Non-irrigated arable land', 'Permanently irrigated land',
    'Rice fields', 'Vineyards', 'Fruit trees and berry plantations', 'Olive groves', 'Pastures',
    'Annual crops associated with permanent crops', 'Complex cultivation patterns', _AGRICULTURE,
    'Agro-forestry areas', 'Broad-leaved forest', 'Coniferous forest', 'Mixed forest',
    'Natural grassland', 'Moors and heathland', 'Sclerophyllous vegetation',
    'Transitional woodland/shrub', 'Beaches, dunes, sands', 'Bare rock',
    'Sparsely vegetated areas', 'Burnt areas', 'Inland marshes', 'Peatbogs', 'Salt marshes',
    'Salines', 'Intertidal flats', 'Water courses', 'Water bodies', 'Coastal lagoons', 'Estuaries',
    'Sea and ocean',
)  # fmt: skip
CLASSES_19 = (
    'Urban fabric', 'Industrial or commercial units', 'Arable land', 'Permanent crops', 'Pastures',
    'Complex cultivation patterns', _AGRICULTURE, 'Agro-forestry areas', 'Broad-leaved forest',
    'Coniferous forest', 'Mixed forest', 'Natural grassland and sparsely vegetated areas',
    'Moors, heathland and sclerophyllous vegetation', 'Transitional woodland, shrub',
    'Beaches, dunes, sands', 'Inland wetlands', 'Coastal wetlands', 'Inland waters',
    'Marine waters',
)  # fmt: skip
# For each of the 19 classes, which of the 43 are in it; 3 to 10, 30, 32 and 37 are in none.
GROUPS = (
    (0, 1), (2,), (11, 12, 13), (14, 15, 16, 18), (17,), (19,), (20,), (21,), (22,), (23,), (24,),
    (25, 31), (26, 27), (28,), (29,), (33, 34), (35, 36), (38, 39), (40, 41, 42),
)  # fmt: skip
CLASSES = {19: CLASSES_19, 43: CLASSES_43}
_NUMBERS = {count: {name: at for at, name in enumerate(names)} for count, names in CLASSES.items()}
_GROUP_OF = {member: group for group, members in enumerate(GROUPS) for member in members}


def label_numbers(
    names: Iterable[str], num_classes: int, source: int, path: object = None
) -> list[int]:
    """Turns the names of the classes of a patch into numbers, sorted and without repetition.

    Args:
        names: As the dataset writes them.
        num_classes: 19 or 43: what the numbers count.
        source: 19 or 43: which classes the names are of. From 43 to 19, classes that belong to
            none of the 19 are left out, as the publisher does: the list may become empty.
        path: Where the names were read, for the message.

    Raises:
        DataError: For a name that is none of the classes, or 19 names where 43 classes are wanted.
    """
    if source < num_classes:
        raise DataError(
            f'its labels are of {source} classes: they say nothing of {num_classes}',
            path=str(path) if path is not None else None,
            hint='The metadata of version 2 hold 19 classes; version 1 holds 43',
        )
    known = _NUMBERS[source]
    numbers = set()
    for name in names:
        if name not in known:
            raise DataError(
                f'{name!r} is none of the {source} classes of BigEarthNet',
                path=str(path) if path is not None else None,
            )
        number = known[name]
        if source == num_classes:
            numbers.add(number)
        elif number in _GROUP_OF:
            numbers.add(_GROUP_OF[number])
    return sorted(numbers)


def nomenclature(names: Sequence[str]) -> int | None:
    """19 or 43: the one nomenclature that all names are of; ``None`` where both or none is."""
    fits = [count for count, numbers in _NUMBERS.items() if all(name in numbers for name in names)]
    return fits[0] if len(fits) == 1 else None
