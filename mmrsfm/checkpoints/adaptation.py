# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What may differ between the imagery of a checkpoint and that of a run, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mmrsfm.contract import ImageryContract, band_keys
from mmrsfm.errors import ConfigError, ContractError

BAND_METHODS = ('by_name', 'mean', 'repeat', 'random')
CHOICES = (
    "adapt='by_name' takes the stem's columns of the bands with the same names, adapt='mean' gives "
    "every band the mean column, adapt='repeat' repeats the columns in order, adapt='random' "
    "leaves the stem as it was initialised, adapt=dict(ignore=['gsd', ...]) lets fields differ"
)
_BY_BAND = ('mean', 'std', 'scale', 'offset')


@dataclass(frozen=True)
class Adaptation:
    """What a config says about differences between a checkpoint and its own imagery.

    Attributes:
        bands: How the stem gets other input channels: ``'by_name'``, ``'mean'``, ``'repeat'``,
            ``'random'`` (see :mod:`mmrsfm.checkpoints.stem`); ``None``: other bands are an error.
        ignore: Fields of the contract that may differ.
        source_bands: Names of the checkpoint's bands, for one that carries no contract.
    """

    bands: str | None = None
    ignore: tuple[str, ...] = ()
    source_bands: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.bands is not None and self.bands not in BAND_METHODS:
            raise ConfigError(f'adapt: bands={self.bands!r} is not one of {BAND_METHODS}')
        known = {field.name for field in fields(ImageryContract)}
        unknown = set(self.ignore) - known
        if unknown:
            raise ConfigError(f'adapt: ignore={sorted(unknown)}; the fields are {sorted(known)}')

    @classmethod
    def parse(cls, adapt: str | Mapping[str, Any] | Adaptation | None) -> Adaptation:
        """From what a config holds: nothing, a method for the bands, or a dict."""
        if adapt is None:
            return cls()
        if isinstance(adapt, cls):
            return adapt
        if isinstance(adapt, str):
            return cls(bands=adapt)
        if not isinstance(adapt, Mapping):
            raise ConfigError(f'adapt={adapt!r} must be a string or a dict')
        unknown = set(adapt) - {'bands', 'ignore', 'source_bands'}
        if unknown:
            raise ConfigError(
                f'adapt: unknown keys {sorted(unknown)}; known are bands, ignore, source_bands'
            )
        names = adapt.get('source_bands')
        ignore = adapt.get('ignore', ())
        return cls(
            bands=adapt.get('bands'),
            ignore=(ignore,) if isinstance(ignore, str) else tuple(ignore),
            source_bands=None if names is None else tuple(names),
        )


def check_contract(
    checkpoint: ImageryContract,
    run: ImageryContract,
    adaptation: Adaptation,
    where: str,
) -> list[str]:
    """Compares the imagery that a checkpoint was trained on with that of a run.

    Fields that one side leaves open are not compared, nor is the licence. With ``bands='by_name'``
    what is stated by band (mean, std, perhaps scale and offset) is compared band by band, for the
    bands that both have; with the other methods it is compared where the bands are the same.

    Args:
        checkpoint: Contract of the checkpoint.
        run: Contract of the run.
        adaptation: What the config allows.
        where: The checkpoint, for the message.

    Returns:
        The differences that ``adaptation`` allows, as text.

    Raises:
        ContractError: If there are others. The message names each field, both values and what
            ``adapt=`` offers.
    """
    ignored = ('licence', *adaptation.ignore)
    differing = checkpoint.differences(run, ignore=('licence',))
    allowed = [
        f'{name}: {_short(theirs)} there, {_short(ours)} here'
        for name, (theirs, ours) in differing.items()
        if name in ignored or (name == 'band_names' and adaptation.bands is not None)
    ]
    if adaptation.bands == 'by_name':
        checkpoint, run = _common_bands(checkpoint, run)
    elif adaptation.bands is not None and checkpoint.band_names != run.band_names:
        by_band = [
            name
            for name in _BY_BAND
            if isinstance(getattr(checkpoint, name), tuple) or isinstance(getattr(run, name), tuple)
        ]
        by_band.append('sensors')
        checkpoint = replace(checkpoint, band_names=None, **dict.fromkeys(by_band))
    left = checkpoint.differences(run, ignore=ignored)
    if left:
        lines = '\n'.join(
            f'  {name}: the checkpoint has {_short(theirs)}, this run {_short(ours)}'
            for name, (theirs, ours) in left.items()
        )
        raise ContractError(
            f'{where} was trained on other imagery than this run reads:\n{lines}\n'
            f'Correct the config, or say in init_cfg what to do: {CHOICES}.'
        )
    return allowed


def _common_bands(
    checkpoint: ImageryContract, run: ImageryContract
) -> tuple[ImageryContract, ImageryContract]:
    if checkpoint.band_names is None or run.band_names is None:
        return checkpoint, run
    theirs, ours = band_keys(checkpoint.band_names), band_keys(run.band_names)
    common = [name for name in ours if name in theirs]
    return (
        checkpoint.select([theirs.index(name) for name in common]),
        run.select([ours.index(name) for name in common]),
    )


def _short(value: Any) -> str:
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= 160 else f'{text[:157]}...'
