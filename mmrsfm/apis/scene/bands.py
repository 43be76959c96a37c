# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Which bands of a file are those that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmrsfm.apis.scene.pipeline import InputSpec
from mmrsfm.contract import band_keys
from mmrsfm.errors import BandMismatchError

Bands = Mapping[str, str | int] | Sequence[str | int]


def choose_bands(
    spec: InputSpec,
    count: int,
    names: Sequence[str] | None,
    path: str,
    bands: Bands | None = None,
    file_bands: Sequence[str] | None = None,
) -> tuple[list[int], tuple[str, ...] | None]:
    """Finds the bands of the model in a file.

    Args:
        spec: What the model reads.
        count: Number of bands of the file.
        names: The file's own names of its bands.
        path: The file, for messages.
        bands: What the user says: from names of the model's bands to names or one-based numbers
            of the file's, for those that are named otherwise; or names or numbers for all of the
            model's bands, in its order.
        file_bands: Names of all bands of the file, which override its own.

    Returns:
        Zero-based numbers of the file's bands, in the model's order, and the names that the model
        knows them by; ``None`` where it names none.

    Raises:
        BandMismatchError: If a band is missing, or what is there says nothing about which is which.
    """
    if file_bands is not None:
        if len(file_bands) != count:
            raise BandMismatchError(
                f'{count} band(s), but {len(file_bands)} names were given: {list(file_bands)}',
                path=path,
            )
        names = file_bands
    wanted = spec.bands
    if bands is not None and not isinstance(bands, Mapping):
        expected = spec.count if wanted is None else len(wanted)
        if expected is not None and len(bands) != expected:
            raise BandMismatchError(
                f'{len(bands)} band(s) were chosen, {list(bands)}, the model takes {expected}'
                f'{_trained(wanted)}',
                path=path,
            )
        found = [_number(band, count, names, path, wanted) for band in bands]
        return found, _known(wanted, names, found)
    if wanted is None:
        found = _all(spec, count, names, path)
        return found, _known(None, names, found)
    if names is None and not all(isinstance(band, int) or band in (bands or ()) for band in wanted):
        missing = next(band for band in wanted if band not in (bands or ()))
        raise BandMismatchError(
            f'asked for by name, but the file does not name its {count} band(s){_trained(wanted)}',
            path=path,
            band=missing,
            hint='Name all bands of the file, in its order (band_names=[...], --band-names), or '
            'say where each is (bands={...}, --bands B04=1 ...)',
        )
    found = [
        _number((bands or {}).get(str(band), band), count, names, path, wanted) for band in wanted
    ]
    return found, _known(wanted, names, found)


def _all(spec: InputSpec, count: int, names: Sequence[str] | None, path: str) -> list[int]:
    if spec.count is None or count == spec.count:
        return list(range(count))
    if spec.eight_bit and spec.count == 3 and names is not None:
        keys = [name.lower()[:1] for name in names]
        if count == 4 and keys == ['r', 'g', 'b', 'a']:
            return [0, 1, 2]
    raise BandMismatchError(
        f'{count} band(s), the model takes {spec.count}',
        path=path,
        hint='Choose them in the order of the model (pictures: red first): bands=[4, 3, 2]',
    )


def _number(
    band: str | int,
    count: int,
    names: Sequence[str] | None,
    path: str,
    wanted: Sequence[str | int] | None,
) -> int:
    if isinstance(band, int):
        if 1 <= band <= count:
            return band - 1
        raise BandMismatchError(f'the file has {count} band(s), counted from 1', path, band)
    keys = band_keys(names or ())
    if band_keys([band])[0] in keys:
        return keys.index(band_keys([band])[0])
    raise BandMismatchError(
        f'not among the bands of the file, {list(names or ())}{_trained(wanted)}',
        path=path,
        band=band,
        hint='If the file names it otherwise: bands={...}, --bands NAME=NAME_IN_FILE',
    )


def _trained(wanted: Sequence[str | int] | None) -> str:
    return '' if wanted is None else f'; the model was trained on {list(wanted)}'


def _known(
    wanted: Sequence[str | int] | None, names: Sequence[str] | None, found: Sequence[int]
) -> tuple[str, ...] | None:
    """The names that the later steps see: the model's own, where it has any."""
    if wanted is not None and all(isinstance(band, str) for band in wanted):
        return tuple(str(band) for band in wanted)
    return None if names is None else tuple(names[number] for number in found)
