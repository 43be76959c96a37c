# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DIOR-R: oriented boxes of 20 classes in images of 800 x 800 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import numpy as np
from mmrotate.datasets import DIORDataset as BaseDIORDataset
from PIL import Image

from mmrsfm.datasets.rotated.quadrilaterals import is_degenerate
from mmrsfm.errors import DataError, DatasetNotFoundError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.conversion import read_text

_CORNERS = ('left_top', 'right_top', 'right_bottom', 'left_bottom')


@DATASETS.register_module()
class DIORRDataset(BaseDIORDataset):
    """DIOR with its oriented boxes, from the published XML files; nothing is to be converted.

    Layout::

        data_root/
        ├── ImageSets/Main/{train,val,test}.txt                     one id a line: 00001
        ├── JPEGImages-trainval/*.jpg                               11,725 images
        ├── JPEGImages-test/*.jpg                                   11,738 images
        └── Annotations/Oriented Bounding Boxes/*.xml

    mmrotate's reader, with its defects mended: blank lines in the lists are passed over, width and
    height of a file without ``<size>`` are not swapped, an unknown class or a broken file is an
    error that names the file, ``bbox_min_size`` in ``filter_cfg`` means the box and not the image.
    As in the published fine-tuning, objects of which two neighbouring corners coincide are left
    out.

    Paper: Cheng et al., "Anchor-Free Oriented Proposal Generator for Object Detection", TGRS 2022,
    arXiv 2110.01931. Licence: not stated; imagery from Google Earth, for research.

    Args:
        ann_subdir: Folder of the XML files, below ``data_root``.
        ann_type: ``'obb'``, or ``'hbb'`` for the horizontal boxes as quadrilaterals.
        **kwargs: As of mmrotate's DIORDataset.

    Raises:
        DatasetNotFoundError: A folder, a list or a file that a list names is missing.
        DataError: A file cannot be read, or names an unknown class.
    """

    layout: ClassVar[str] = (
        'ImageSets/Main/, JPEGImages-trainval/, JPEGImages-test/, '
        'Annotations/Oriented Bounding Boxes/, as published (nothing is to be converted)'
    )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Reads the list of ids and the XML file of each."""
        hint = f'Expected: {self.layout}'
        ids_file = Path(self.ann_file)
        images = Path(self.data_prefix.get('img_path') or '.')
        labels = Path(self.data_root or '.') / self.ann_subdir
        if not ids_file.is_file():
            raise DatasetNotFoundError('no such list of images (ann_file)', ids_file, hint=hint)
        for folder, name in ((images, "data_prefix['img_path']"), (labels, 'ann_subdir')):
            if not folder.is_dir():
                raise DatasetNotFoundError(f'no such folder ({name})', folder, hint=hint)
        self.cat2label = {name: label for label, name in enumerate(self.metainfo['classes'])}
        samples = []
        for line in read_text(ids_file, 'list of images').splitlines():
            name = line.strip()
            if not name:
                continue
            xml = labels / f'{name}.xml'
            if not xml.is_file():
                raise DatasetNotFoundError(f'is missing, but {ids_file} names it', xml, hint=hint)
            samples.append(
                self.parse_data_info(
                    {'img_id': name, 'file_name': f'{name}.jpg', 'xml_path': str(xml)}
                )
            )
        return samples

    def parse_data_info(self, img_info: dict[str, Any]) -> dict[str, Any]:
        """Reads one XML file.

        Args:
            img_info: ``img_id``, ``file_name`` and ``xml_path``.

        Returns:
            What MMEngine calls a data info: ``instances`` with ``bbox`` (8 corner coordinates in
            pixels), ``bbox_label`` and ``ignore_flag``, beside paths and size.
        """
        xml = img_info['xml_path']
        image = Path(self.data_prefix.get('img_path') or '.') / img_info['file_name']
        try:
            root = ElementTree.parse(xml).getroot()
            width, height = self._size(root, image)
            found = [self._object(one, xml) for one in root.findall('object')]
        except (ElementTree.ParseError, AttributeError, TypeError, ValueError) as error:
            raise DataError(f'is no annotation of DIOR-R ({error})', xml) from error
        instances = [one for one in found if one is not None]
        return {
            'img_path': str(image),
            'img_id': img_info['img_id'],
            'file_name': img_info['file_name'],
            'xml_path': xml,
            'height': height,
            'width': width,
            'instances': instances,
        }

    @staticmethod
    def _size(root: ElementTree.Element, image: Path) -> tuple[int, int]:
        """(width, height) in pixels."""
        size = root.find('size')
        if size is not None:
            return int(_text(size, 'width')), int(_text(size, 'height'))
        with Image.open(image) as opened:
            return opened.size

    def _object(self, one: ElementTree.Element, xml: str) -> dict[str, Any] | None:
        name = _text(one, 'name').strip().lower()
        if name not in self.cat2label:
            raise DataError(
                f'names the class {name!r}, which {type(self).__name__} does not have',
                xml,
                hint=f'Its classes are {", ".join(self.cat2label)}',
            )
        if self.ann_type == 'obb':
            box = one.find('robndbox')
            if box is None:
                raise DataError('has an object without <robndbox>', xml)
            corners = [float(_text(box, f'{axis}_{at}')) for at in _CORNERS for axis in 'xy']
        else:
            box = one.find('bndbox')
            if box is None:
                return None
            x1, y1, x2, y2 = (float(_text(box, key)) for key in ('xmin', 'ymin', 'xmax', 'ymax'))
            corners = [x1, y1, x2, y1, x2, y2, x1, y2]
        polygon = np.array(corners, dtype=np.float32)
        if is_degenerate(polygon.tolist()):
            return None
        ignored = False
        if self.bbox_min_size is not None:
            sides = np.linalg.norm(polygon.reshape(4, 2)[:2] - polygon.reshape(4, 2)[1:3], axis=1)
            ignored = bool(sides.min() < self.bbox_min_size)
        return {'bbox': polygon, 'bbox_label': self.cat2label[name], 'ignore_flag': int(ignored)}


def _text(element: ElementTree.Element, name: str) -> str:
    child = element.find(name)
    if child is None or child.text is None:
        raise ValueError(f'no <{name}> in <{element.tag}>')
    return child.text
