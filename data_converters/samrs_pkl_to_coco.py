# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Converts the instance masks of SAMRS (one pickle an image) to COCO json files.

The pickles of the release hold lists, dicts, text, numbers and NumPy arrays. They are read without
running anything that they name: see :func:`mmrsfm.utils.plain_pickle.load_plain_pickle`.

Example; the folder holds ``train.txt``, ``valid.txt`` and the files as published, of SOTA and FAST
``trainval/{images,rhbox_segs_init/ins}``, of SIOR ``JPEGImages-trainval`` and
``hbox_segs_trainvaltest_init/ins``, or else ``images`` and ``ins``::

    python data_converters/samrs_pkl_to_coco.py data/samrs/sota data/samrs/sota --dataset sota
    python data_converters/samrs_pkl_to_coco.py data/samrs/sior data/samrs/sior --dataset sior

Other folders: ``--images``, ``--masks`` and ``--suffix``. ``--check-rotated`` reads the rotated
boxes of every image too (text or XML), so that a training does not find the first broken one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pycocotools import mask as coco_mask

from mmrsfm.class_tables import SAMRS
from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.utils.conversion import (
    each,
    errors_end_command,
    read_names,
    write_json,
)
from mmrsfm.utils.rgb import image_size
from mmrsfm.utils.samrs import LAYOUTS, annotation_file, read_instances, read_rotated


def find_folder(root: str | Path, published: str, plain: str) -> str:
    """The published folder of a part of SAMRS if it is there, else a plain name.

    Args:
        root: Root of the part.
        published: Below ``root``.
        plain: Below ``root``.
    """
    return published if (Path(root) / published).is_dir() else plain


def samrs_to_coco(
    root: str | Path,
    target: str | Path,
    dataset: str,
    splits: Sequence[str] = ('train', 'valid'),
    images: str | None = None,
    masks: str | None = None,
    suffix: str | None = None,
    missing: str = 'raise',
    rotated: str | None = None,
    check_rotated: bool = False,
    workers: int = 1,
    quiet: bool = False,
) -> dict[str, tuple[int, int]]:
    """Writes ``{target}/{dataset}_rbb_{split}_ins_segmentation.json`` for each split.

    Boxes and areas come from the masks, category numbers begin at 0, in the order of SAMRS.

    Args:
        root: Folder with the lists ``{split}.txt``, the images and the pickles.
        target: Folder for the json files.
        dataset: ``'sota'``, ``'sior'`` or ``'fast'``: which class table the labels refer to.
        splits: Names of the lists.
        images: Folder of the images below ``root``; only their sizes are read. Defaults to that of
            the release, or ``images`` where there is none.
        masks: Folder of the pickles below ``root``. Defaults to that of the release, or ``ins``.
        suffix: Suffix of the images. Defaults to that of the release where its folder is there,
            else ``.png``.
        missing: An image without a pickle: ``'raise'``, or ``'empty'`` for an image without
            instances.
        rotated: Folder of the rotated boxes below ``root``. Defaults to that of the release.
        check_rotated: Whether to read the rotated boxes of each image, too; nothing is written.
        workers: Number of threads.
        quiet: No progress line.

    Returns:
        Numbers of images and of instances by split.

    Raises:
        ConfigError: For an unknown ``dataset`` or ``missing``.
        DatasetNotFoundError: If a list, an image or a pickle is missing.
        DataError: If a pickle is damaged, unsafe or not of this form, or a rotated box cannot be
            read; it is named.
    """
    root, target = Path(root), Path(target)
    if dataset not in SAMRS:
        raise ConfigError(f'dataset is one of {tuple(SAMRS)}, got {dataset!r}')
    if missing not in ('raise', 'empty'):
        raise ConfigError(f"missing is 'raise' or 'empty', got {missing!r}")
    classes, layout = SAMRS[dataset], LAYOUTS[dataset]
    images = images or find_folder(root, layout.images, 'images')
    masks = masks or find_folder(root, layout.instances, 'ins')
    suffix = suffix or (layout.suffix if images == layout.images else '.png')
    boxes = rotated or layout.rotated
    labels = {name: label for label, name in enumerate(classes)}

    lists = {split: read_names(root / f'{split}.txt') for split in splits}
    for split, names in lists.items():
        if not names:
            raise DataError('names no images', path=root / f'{split}.txt')

    def read(name: str) -> tuple[dict, list[dict]]:
        path = root / masks / f'{name}.pkl'
        width, height = image_size(root / images / f'{name}{suffix}')
        image = {
            'file_name': f'{name}{suffix}', 'height': height, 'width': width,
            'segm_file': path.name,
        }  # fmt: skip
        if check_rotated:
            read_rotated(root / boxes / f'{name}{layout.rotated_suffix}', labels)
        if not path.is_file() and missing == 'empty':
            return image, []
        try:
            found = read_instances(path, (height, width), len(classes))
        except DatasetNotFoundError as error:
            raise DatasetNotFoundError(
                error.reason,
                path=path,
                hint="missing='empty' (--missing empty) keeps such images, without instances",
            ) from error
        return image, [_annotation(one['label'], one['mask']) for one in found]

    counts = {}
    for split, names in lists.items():
        results = each(read, names, f'{dataset} {split}', workers, quiet)
        flat = []
        for image_id, (image, found) in enumerate(results):
            image['id'] = image_id
            for annotation in found:
                flat.append({**annotation, 'image_id': image_id, 'id': len(flat)})
        content = {
            'images': [image for image, _ in results],
            'categories': [{'id': index, 'name': name} for index, name in enumerate(classes)],
            'annotations': flat,
        }
        write_json(target / annotation_file(dataset, split), content)
        counts[split] = (len(names), len(flat))
    return counts


def _annotation(label: int, rle: dict) -> dict:
    """``rle`` has been checked: pycocotools writes beyond its memory where it is wrong."""
    if isinstance(rle['counts'], list):
        packed = coco_mask.frPyObjects(rle, *rle['size'])
        rle = {'size': rle['size'], 'counts': packed['counts'].decode('ascii')}
    return {
        'iscrowd': 0,
        'category_id': label,
        'bbox': coco_mask.toBbox(rle).tolist(),
        'area': int(coco_mask.area(rle)),
        'segmentation': rle,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('root', help='folder with lists, images and pickles')
    parser.add_argument('target', help='folder for the json files')
    parser.add_argument('--dataset', required=True, choices=list(SAMRS))
    parser.add_argument('--splits', nargs='+', default=['train', 'valid'], help='names of lists')
    parser.add_argument('--images', help='folder of the images below root')
    parser.add_argument('--masks', help='folder of the pickles below root')
    parser.add_argument('--suffix', help='suffix of the images')
    parser.add_argument('--missing', default='raise', choices=['raise', 'empty'])
    parser.add_argument('--rotated', help='folder of the rotated boxes below root')
    parser.add_argument('--check-rotated', action='store_true', help='read the rotated boxes, too')
    parser.add_argument('--workers', type=int, default=4, help='threads')
    args = parser.parse_args()
    with errors_end_command():
        counts = samrs_to_coco(**vars(args))
    for split, (images, instances) in counts.items():
        print(f'{args.dataset} {split}: {images} images, {instances} instances')


if __name__ == '__main__':
    main()
