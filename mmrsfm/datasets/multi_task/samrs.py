# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SAMRS, and data sets of its form: three kinds of label for an image."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmrsfm.class_tables import SAMRS
from mmrsfm.datasets.detection.checked_coco_dataset import CheckedCocoDataset
from mmrsfm.datasets.multi_task.transforms.load_annotations import TASKS
from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.conversion import read_names
from mmrsfm.utils.samrs import LAYOUTS, Layout


@DATASETS.register_module()
class SAMRSDataset(CheckedCocoDataset):
    """A part of SAMRS (SOTA, SIOR or FAST), or a data set of one's own in its form.

    Layout of SOTA, of FAST and of one's own (:mod:`data_converters.polygons_to_samrs` writes it)::

        data_root/
        ├── {train,valid}.txt                                      a name without suffix a line
        ├── {name}_rbb_{train,valid}_ins_segmentation.json         by samrs_pkl_to_coco.py
        └── trainval/
            ├── images/*.png
            ├── rhbox_segs_init/gray/*.png                         class of each pixel; 255: none
            ├── rhbox_segs_init/ins/*.pkl                          if there is no json
            └── rbbtxts/*.txt                                      rotated boxes, DOTA's form

    and of SIOR ``JPEGImages-trainval/*.jpg``, ``hbox_segs_trainvaltest_init/{gray,ins}`` and
    ``Annotations/Oriented Bounding Boxes/*.xml``. The list of instances is read once; images, label
    maps, masks and rotated boxes are decoded in the workers (``mmrsfm.LoadMultiTaskAnnotations``),
    masks by a decoder of ours that checks them, pickles without running what they name.

    Instances are boxes and masks by SAM, rotated boxes those of the benchmark: their numbers may
    differ. As in MTP, instances without area or with a side below a pixel are left out, and rotated
    boxes of which two neighbouring corners coincide.

    Paper: Wang et al., "SAMRS: Scaling-up Remote Sensing Segmentation Dataset with Segment Anything
    Model", NeurIPS 2023 Datasets and Benchmarks, arXiv 2305.02034; Wang et al., "MTP: Advancing
    Remote Sensing Foundation Model via Multi-Task Pretraining", JSTARS 2024, arXiv 2403.13430. The
    images are those of DOTA, DIOR and FAIR1M, under the terms of their publishers.

    Args:
        name: ``'sota'``, ``'sior'``, ``'fast'``, or the name of another data set, whose classes
            ``metainfo`` gives. The model finds the layers of a data set by it.
        tasks: Of ``('semantic', 'instance', 'rotated')`` those whose labels are there and wanted.
        background: Whether what is no object is a class of the label map (the first one, as in
            MTP), or has no label.
        ann_file: The json; or a list of names (``.txt``) with one pickle of instances an image,
            which needs no conversion.
        data_prefix: Folders below ``data_root``: ``img``, ``seg``, ``ins`` and ``rotated``, where
            they are not those of the layout above.
        img_suffix: Suffix of the images, for a list of names.
        rotated_suffix: ``'.txt'`` or ``'.xml'``. Both default to those of the layout.
        diff_thr: Rotated boxes of a difficulty above this are marked to be ignored.
        skip_degenerate: Whether to leave out rotated boxes without an area; see above.
        metainfo: ``classes`` and, if wanted, ``palette`` of a data set of one's own.
        **kwargs: As of mmdet's CocoDataset; ``seg_map_suffix`` is ``'.png'`` unless given.

    Attributes:
        metainfo: ``dataset_name``, ``tasks``, ``classes`` (of the objects) and their ``palette``,
            ``semantic_classes`` and ``semantic_palette`` (of the pixels: one more with
            ``background``), ``background``.

    Raises:
        ConfigError: For an unknown task, a list together with ``filter_empty_gt``, or a name
            without classes.
        DatasetNotFoundError: A file or folder that a task needs is missing.
        DataError: The json has other classes, or in another order.
    """

    layout: ClassVar[str] = (
        'lists, images, label maps and rotated boxes of SAMRS as published, see docs/datasets.md'
    )
    converter: ClassVar[str] = (
        'python data_converters/samrs_pkl_to_coco.py, or, of polygons of your own, '
        'polygons_to_samrs.py'
    )

    def __init__(
        self,
        name: str,
        *,
        tasks: Sequence[str] = TASKS,
        background: bool = True,
        ann_file: str = '',
        data_prefix: Mapping[str, str] | None = None,
        img_suffix: str | None = None,
        rotated_suffix: str | None = None,
        diff_thr: int = 100,
        skip_degenerate: bool = True,
        metainfo: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not tasks or set(tasks) - set(TASKS):
            raise ConfigError(f'tasks are some of {TASKS}, got {list(tasks)}')
        self.dataset_name = name
        self.tasks = tuple(task for task in TASKS if task in tasks)
        self.background = background
        self.diff_thr = diff_thr
        self.skip_degenerate = skip_degenerate
        layout = LAYOUTS.get(name, Layout())
        self.image_suffix = layout.suffix if img_suffix is None else img_suffix
        self.rotated_suffix = layout.rotated_suffix if rotated_suffix is None else rotated_suffix
        self._is_list = Path(ann_file).suffix == '.txt'
        if self._is_list and (kwargs.get('filter_cfg') or {}).get('filter_empty_gt'):
            raise ConfigError(
                'filter_empty_gt needs the json of samrs_pkl_to_coco.py: what a pickle holds is '
                'not known before it is read'
            )
        prefix = {
            'img': layout.images,
            'seg': layout.classes,
            'ins': layout.instances,
            'rotated': layout.rotated,
            **(data_prefix or {}),
        }
        super().__init__(
            ann_file=ann_file, data_prefix=prefix, metainfo=self._describe(metainfo), **kwargs
        )
        # Not through MMEngine, which takes text in a metainfo for the name of a file.
        self._metainfo['dataset_name'] = name

    def _describe(self, metainfo: Mapping[str, Any] | None) -> dict[str, Any]:
        given = dict(metainfo or {})
        if isinstance(given.get('classes'), str):
            raise ConfigError(
                f'SAMRSDataset: classes are several names, got the text {given["classes"]!r} '
                '(of one class: a comma behind it)'
            )
        classes = given.get('classes') or SAMRS.get(self.dataset_name)
        if classes is None:
            raise ConfigError(
                f'SAMRSDataset: {self.dataset_name!r} is none of {tuple(SAMRS)}, so it needs '
                'metainfo=dict(classes=(...)), in the order of their numbers'
            )
        if not 0 < len(classes) < 254:
            raise ConfigError(f'SAMRSDataset: 1 to 253 classes fit a label map, got {len(classes)}')
        palette = given.get('palette') or _colours(len(classes))
        first: tuple = (('background', (0, 0, 0)),) if self.background else ()
        return {
            'semantic_classes': (*(name for name, _ in first), *classes),
            'semantic_palette': [*(colour for _, colour in first), *palette],
            **given,
            'classes': tuple(classes),
            'palette': palette,
            'tasks': self.tasks,
            'background': self.background,
        }

    def load_data_list(self) -> list[dict[str, Any]]:
        """Reads the json or the list; see the class."""
        for task, key in (('semantic', 'seg'), ('rotated', 'rotated')):
            folder = Path(self.data_prefix.get(key) or '.')
            if task in self.tasks and not folder.is_dir():
                raise DatasetNotFoundError(
                    f'no such folder (data_prefix[{key!r}], for the task {task!r})',
                    folder,
                    hint=f'Expected: {self.layout}. Or leave the task out of tasks=',
                )
        samples = self._from_list() if self._is_list else super().load_data_list()
        images = Path(self.data_prefix.get('img') or '.')
        for sample in samples:
            # With the folder below that of the images, if there is one: names recur in others.
            path = Path(sample['img_path'])
            inside = path.relative_to(images) if path.is_relative_to(images) else Path(path.name)
            stem = inside.with_suffix('')
            if 'semantic' in self.tasks:
                path = Path(self.data_prefix['seg']) / f'{stem}{self.seg_map_suffix}'
                sample['seg_map_path'] = str(path)
            if 'rotated' in self.tasks:
                path = Path(self.data_prefix['rotated']) / f'{stem}{self.rotated_suffix}'
                sample['rotated_path'] = str(path)
            if 'instance' not in self.tasks:
                sample['instances'] = []
        return samples

    def _from_list(self) -> list[dict[str, Any]]:
        images = Path(self.data_prefix.get('img') or '.')
        pickles = Path(self.data_prefix.get('ins') or '.')
        for folder, key in ((images, 'img'), (pickles, 'ins')):
            if not folder.is_dir() and (key == 'img' or 'instance' in self.tasks):
                raise DatasetNotFoundError(
                    f'no such folder (data_prefix[{key!r}])',
                    folder,
                    hint=f'Expected: {self.layout}',
                )
        samples = []
        for number, name in enumerate(read_names(self.ann_file)):
            sample: dict[str, Any] = {
                'img_path': str(images / f'{name}{self.image_suffix}'),
                'img_id': number,
                'instances': [],
            }
            if 'instance' in self.tasks:
                sample['instances_path'] = str(pickles / f'{name}.pkl')
            samples.append(sample)
        if not samples:
            raise DataError('lists no images', self.ann_file)
        return samples

    def _check_categories(self, source: Path) -> None:
        # All of them: a label map numbers the classes of the whole data set.
        found = list(self._categories.values())
        if found != list(self.metainfo['classes']):
            raise DataError(
                f'lists other classes ({len(found)}) than {self.dataset_name!r} has '
                f'({len(self.metainfo["classes"])}), or in another order: label maps would mean '
                'other classes',
                source,
                hint=f'Its categories: {", ".join(found)}. Of a data set of your own give these '
                'as metainfo=dict(classes=(...))',
            )

    def filter_data(self) -> list[dict[str, Any]]:
        """Leaves images out as mmdet does (``filter_cfg``); of a list of names, none."""
        if self._is_list:
            return self.data_list
        kept: list[dict[str, Any]] = super().filter_data()
        return kept

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """What is known of a sample before it is read.

        Args:
            idx: Its number.

        Returns:
            Of the sample ``img_path``, ``img_id``, ``seg_map_path``, ``rotated_path`` and
            ``instances`` or ``instances_path``; of the data set what
            ``mmrsfm.LoadMultiTaskAnnotations`` needs.
        """
        info: dict[str, Any] = super().get_data_info(idx)
        info.update(
            dataset_name=self.dataset_name,
            tasks=self.tasks,
            classes=self.metainfo['classes'],
            background=self.background,
            diff_thr=self.diff_thr,
            skip_degenerate=self.skip_degenerate,
        )
        return info


def _colours(count: int) -> list[tuple[int, int, int]]:
    """Bright colours, neighbours far apart (the hue goes on by the golden section)."""
    found = []
    for number in range(count):
        value = 1.0 - 0.35 * (number % 3 == 2)
        rgb = colorsys.hsv_to_rgb(number * 0.618034 % 1, 1.0 - 0.4 * (number % 2), value)
        red, green, blue = (round(255 * part) for part in rgb)
        found.append((red, green, blue))
    return found
