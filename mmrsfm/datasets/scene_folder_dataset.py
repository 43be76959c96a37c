# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Scene classification from one folder a class: what most benchmarks of that task are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmpretrain.datasets import BaseDataset

from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.randomness import derive_seed
from mmrsfm.registry import DATASETS
from mmrsfm.utils.conversion import read_text

SPLITS = ('train', 'val', 'test')


@DATASETS.register_module()
class SceneFolderDataset(BaseDataset):
    """Images of any number of bands in one folder a class, with a split by list or by fractions.

    Layout::

        {data_root}/{data_prefix}/
        ├── {class}/   images
        └── {class}/   images

    A folder belongs to a class if the names agree but for case and separators. ``ann_file`` names a
    text file that selects a part, one image a line: a path below the folder above, or only the name
    of the file, with any suffix; a class name or index behind it is checked against the folder.

    Without ``ann_file``, ``split`` takes a part of every class: the files are ordered by a hash of
    ``split_seed``, class and file name, and cut by ``fractions``. That is the same everywhere, but
    it is not the split of a publication.

    Args:
        data_root: Folder of the dataset.
        ann_file: Optional list of images, relative to ``data_root``.
        split: ``'train'``, ``'val'`` or ``'test'``; ``None`` takes all. Not with ``ann_file``.
        fractions: Parts of train, val and test; what is left of 1 is in none of them.
        split_seed: Seed of the order from which ``split`` is cut.
        band_names: Names of all bands of the files; ``None``: those of the class.
        suffixes: Suffixes of images, in small letters; ``None``: those of the class.
        **kwargs: As of mmpretrain's BaseDataset (``data_prefix``, ``classes``, ``pipeline``, ...).
            Without classes in METAINFO or arguments, the sorted folder names are the classes.

    Raises:
        DatasetNotFoundError: With the layout that is expected.
        ConfigError: For an unknown split.
    """

    bands: ClassVar[tuple[str, ...] | None] = None
    suffixes: ClassVar[tuple[str, ...]] = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.jp2')
    citation: ClassVar[str] = ''
    licence: ClassVar[str] = ''
    layout: ClassVar[str] = 'one folder of images for each class'

    def __init__(
        self,
        data_root: str = '',
        ann_file: str = '',
        split: str | None = None,
        fractions: Sequence[float] = (0.6, 0.2, 0.2),
        split_seed: int = 0,
        band_names: Sequence[str] | None = None,
        suffixes: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if split is not None and (split not in SPLITS or ann_file):
            raise ConfigError(
                f'{type(self).__name__}: split is one of {SPLITS}, and not given with ann_file; '
                f'got split={split!r}, ann_file={ann_file!r}'
            )
        if len(fractions) != 3 or min(fractions) < 0 or sum(fractions) > 1 + 1e-9:
            raise ConfigError(f'fractions are three parts of 1, got {fractions}')
        self.split = split
        self.fractions = tuple(fractions)
        self.split_seed = split_seed
        names = band_names if band_names is not None else self.bands
        self.band_names = None if names is None else tuple(names)
        self._suffixes = tuple(self.suffixes if suffixes is None else suffixes)
        super().__init__(ann_file=ann_file, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the images and their classes; see the class."""
        root = Path(self.img_prefix or '.')
        if not root.is_dir():
            raise self.not_found('no such folder', root)
        found = self._scan(root)
        chosen = self._from_list(found, root) if self.ann_file else self._from_split(found)
        samples = []
        for path, label in chosen:
            sample = {'img_path': str(path), 'gt_label': label}
            if self.band_names is not None:
                sample['band_names'] = self.band_names
            samples.append(sample)
        if not samples:
            raise self.not_found(f'no image with one of the suffixes {self._suffixes}', root)
        return samples

    def not_found(self, reason: str, path: str | Path) -> DatasetNotFoundError:
        """The error with the layout that is expected."""
        source = f' ({self.citation})' if self.citation else ''
        return DatasetNotFoundError(reason, path=path, hint=f'Expected: {self.layout}{source}')

    def _scan(self, root: Path) -> list[tuple[Path, int]]:
        """All images below the folders of the classes, in the order of the names."""
        folders = sorted(path for path in root.iterdir() if path.is_dir())
        classes = self._metainfo.get('classes')
        if classes is None:
            classes = [folder.name for folder in folders]
            self._metainfo['classes'] = tuple(classes)
        index = {_key(name): number for number, name in enumerate(classes)}
        known = {_key(name) for name in self.METAINFO.get('classes', ())}
        found, seen = [], set()
        for folder in folders:
            label = index.get(_key(folder.name))
            paths = [
                path for path in sorted(folder.iterdir()) if path.suffix.lower() in self._suffixes
            ]
            if label is None:
                if paths and _key(folder.name) not in known:
                    raise self.not_found('the folder is none of the classes', folder)
                continue
            seen.add(label)
            found += [(path, label) for path in paths]
        missing = [name for number, name in enumerate(classes) if number not in seen]
        if missing:
            raise self.not_found(f'no folder for the classes {missing[:5]}', root)
        if not found:
            raise self.not_found(f'no image with one of the suffixes {self._suffixes}', root)
        empty = seen - {label for _, label in found}
        if empty:
            names = [classes[label] for label in sorted(empty)][:5]
            raise self.not_found(f'no image of the classes {names}', root)
        return found

    def _from_split(self, found: list[tuple[Path, int]]) -> list[tuple[Path, int]]:
        if self.split is None:
            return found
        place = SPLITS.index(self.split)
        first, last = sum(self.fractions[:place]), sum(self.fractions[: place + 1])
        of_class: dict[int, list[tuple[Path, int]]] = defaultdict(list)
        for path, label in found:
            of_class[label].append((path, label))
        chosen: list[tuple[Path, int]] = []
        for pairs in of_class.values():
            # Names without suffix, so that the RGB and the many-band files are split alike.
            pairs.sort(key=lambda pair: derive_seed(self.split_seed, pair[1], pair[0].stem))
            chosen += pairs[round(first * len(pairs)) : round(last * len(pairs))]
        return sorted(chosen)

    def _from_list(self, found: list[tuple[Path, int]], root: Path) -> list[tuple[Path, int]]:
        source = Path(self.ann_file)
        if not source.is_file():
            raise self.not_found('no such list of images (ann_file)', source)
        by_path = {path.relative_to(root).with_suffix('').as_posix(): one for one in found
                   for path in one[:1]}  # fmt: skip
        by_name: dict[str, list[tuple[Path, int]]] = defaultdict(list)
        for path, label in found:
            by_name[path.stem].append((path, label))
        chosen = []
        for number, line in enumerate(read_text(source, 'list of images').splitlines(), start=1):
            if not line.strip():
                continue
            name, claimed = self._parse(line.strip())
            key = Path(name).with_suffix('')
            candidates = [by_path[key.as_posix()]] if key.as_posix() in by_path else []
            candidates = candidates or by_name.get(key.name, [])
            if len(candidates) != 1:
                what = 'is missing' if not candidates else 'is the name of several images'
                raise self.not_found(f'line {number}: {name} {what} below {root}', source)
            if claimed is not None and claimed != candidates[0][1]:
                raise self.not_found(
                    f'line {number}: {name} is said to be of class {claimed}, but is in the folder '
                    f'of class {candidates[0][1]}',
                    source,
                )
            chosen.append(candidates[0])
        return chosen

    def _parse(self, line: str) -> tuple[str, int | None]:
        """(path, class index or None) of a line of the list."""
        head, _, tail = line.rpartition(' ')
        if head and tail.isdigit():
            return head.strip(), int(tail)
        if head and tail in self.CLASSES:
            return head.strip(), self.class_to_idx[tail]
        return line, None


def _key(name: str) -> str:
    return ''.join(letter for letter in name.lower() if letter.isalnum())
