# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The errors that mmrsfm raises on purpose.

Each message says what was wrong, where (file, band, key), and what the user can do about it. Code
that reads data raises :class:`DataError` and nothing else for a bad input, so that the policy of a
training run (``raise`` or ``skip``) can tell a broken file from a broken program.
"""

from __future__ import annotations

from pathlib import Path


class MMRSFMError(RuntimeError):
    """Base class of all errors that mmrsfm raises on purpose."""


class ConfigError(MMRSFMError):
    """A config asks for something contradictory or unknown."""


class LaunchError(MMRSFMError):
    """A run cannot be started as asked (launcher, devices, ranks)."""


class MissingDependencyError(MMRSFMError, ImportError):
    """An optional package is needed for what was asked."""


class DataError(MMRSFMError):
    """One input file cannot be used.

    Args:
        reason: What is wrong, as a clause without a full stop.
        path: The file.
        band: The band, by name or one-based number, if a single one is to blame.
        hint: What the user can do.

    Attributes:
        reason, path, band, hint: As given.
    """

    def __init__(
        self,
        reason: str,
        path: str | Path | None = None,
        band: str | int | None = None,
        hint: str | None = None,
    ) -> None:
        self.reason = reason
        self.path = None if path is None else str(path)
        self.band = band
        self.hint = hint
        where = '' if path is None else f'{path}: '
        which = '' if band is None else f'band {band}: '
        then = '' if hint is None else f'. {hint}'
        super().__init__(f'{where}{which}{reason}{then}')

    def __reduce__(self) -> tuple:
        # Exceptions cross process boundaries (data loader workers): rebuild from the parts.
        return type(self), (self.reason, self.path, self.band, self.hint)


class CorruptImageError(DataError):
    """The file exists, but cannot be decoded (truncated, damaged, not an image)."""


class ImageNotFoundError(DataError, FileNotFoundError):
    """The file does not exist."""

    def __str__(self) -> str:
        # OSError formats its arguments in a way of its own.
        return str(self.args[0])


class BandMismatchError(DataError):
    """The file does not hold the bands that were asked for."""


class ImageSizeError(DataError):
    """The image, or its label, has another size than it should have."""


class OutsideAreaError(DataError):
    """A scene has nothing of the area of interest."""


class DatasetNotFoundError(DataError):
    """The folder or the index of a dataset is missing, or not in the layout that is expected."""


class TooManyBadSamplesError(DataError):
    """More samples were skipped than the policy of the run allows."""


class DiskSpaceError(MMRSFMError):
    """A disk has no room for what is to be written."""


class ExportError(MMRSFMError):
    """A model, or a part of what its config does, cannot be exported."""


class NonFiniteError(MMRSFMError):
    """Too many training steps gave losses or gradients that are NaN or infinite."""


class PreemptedError(MMRSFMError):
    """The run was told to end by a signal; it has saved its state, and can go on from there."""


class CheckpointError(MMRSFMError):
    """Base class of everything that is wrong with a checkpoint."""


class CheckpointReadError(CheckpointError):
    """The file cannot be read as a checkpoint (truncated, not a checkpoint, missing)."""


class CheckpointWriteError(CheckpointError):
    """A checkpoint cannot be written (disk full, no permission)."""


class UnsafeCheckpointError(CheckpointError):
    """The file would execute code, or holds classes outside the allow-list."""


class DigestMismatchError(CheckpointError):
    """The file is not the one whose digest was given."""


class UnknownLayoutError(CheckpointError):
    """No layout, or more than one, fits the keys of the state dict."""


class IncompleteLoadError(CheckpointError):
    """Less was loaded than should have been."""


class ContractError(CheckpointError):
    """Checkpoint and config disagree about bands, scale, sensor or normalisation."""
