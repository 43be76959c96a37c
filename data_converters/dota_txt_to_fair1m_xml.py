# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
r"""Turns DOTA-style detections (Task1_<class>.txt) into the zip file that FAIR1M's server takes.

A test with ``mmrsfm.FAIR1MSubmission`` writes that file at once; this is for results that exist as
text files, for example of mmrotate. Example::

    python data_converters/dota_txt_to_fair1m_xml.py results/ FAIR1M2.0/test/images out/ \
        --provider 'University of X' --author 'our team'
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from mmrsfm.errors import DataError, DatasetNotFoundError
from mmrsfm.evaluation.submissions.base import SubmissionFolder, write_zip
from mmrsfm.evaluation.submissions.fair1m_format import (
    FAIR1MObject,
    Research,
    fair1m_xml,
    image_size,
)
from mmrsfm.utils.conversion import errors_end_command, read_text
from mmrsfm.utils.progress import progress


def convert_dota_txt(
    txt_dir: str | Path,
    img_dir: str | Path,
    out_dir: str | Path,
    research: Research | None = None,
    img_suffix: str = '.tif',
    quiet: bool = False,
) -> Path:
    """Writes one XML file for each test image, with or without detections, and their zip file.

    Each text file and each image's header is read once, each XML file written once.

    Args:
        txt_dir: Folder with ``Task1_<class>.txt``, lines ``image score x1 y1 ... x4 y4``.
        img_dir: Folder with the test images; they say which images there are, and their sizes.
        out_dir: Gets ``test/<image>.xml`` and ``test.zip``.
        research: Who sends it.
        img_suffix: Suffix of the test images.
        quiet: No progress line.

    Returns:
        The zip file.

    Raises:
        DatasetNotFoundError: If there are no images, or no such text files.
        DataError: If a line has another form, or there is no image of its name.
        ConfigError: If ``out_dir`` holds anything but an earlier submission.
    """
    txt_dir, img_dir = Path(txt_dir), Path(img_dir)
    images = sorted(path for path in img_dir.glob(f'*{img_suffix}') if path.is_file())
    if not images:
        raise DatasetNotFoundError(
            f'there are no images with suffix {img_suffix}', path=img_dir, hint='See --suffix'
        )
    files = sorted(txt_dir.glob('Task1_*.txt'))
    if not files:
        raise DatasetNotFoundError('there is no Task1_<class>.txt', path=txt_dir)
    objects: dict[str, list[FAIR1MObject]] = {image.stem: [] for image in images}
    for file in files:
        for image, item in _read(file):
            if image not in objects:
                raise DataError(
                    f'detections for {image!r}, of which there is no image in {img_dir}', path=file
                )
            objects[image].append(item)
    folder = SubmissionFolder(out_dir, 'FAIR1M')
    (folder.path / 'test').mkdir(exist_ok=True)
    members: dict[str, Path] = {}
    for image in images if quiet else progress(images, 'FAIR1M xml'):
        text = fair1m_xml(
            image.name, image_size(image), objects[image.stem], research or Research()
        )
        path = folder.path / 'test' / f'{image.stem}.xml'
        path.write_text(text, encoding='utf-8', newline='\n')
        members[f'test/{path.name}'] = path
    archive = write_zip(folder.path / 'test.zip', members)
    folder.finish([*members.values(), archive])
    return archive


def _read(file: Path) -> Iterator[tuple[str, FAIR1MObject]]:
    name = file.stem.removeprefix('Task1_')
    for row, line in enumerate(read_text(file, 'file of detections').splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        try:
            if len(parts) != 10:
                raise ValueError(f'{len(parts)} fields, not 10')
            float(parts[1])  # the text itself is kept
            corners = [float(value) for value in parts[2:]]
        except ValueError as error:
            raise DataError(f'line {row} is no detection ({error})', path=file) from error
        yield parts[0], FAIR1MObject(name, parts[1], corners)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('txt_dir', help='folder with Task1_<class>.txt')
    parser.add_argument('img_dir', help='folder with the test images')
    parser.add_argument('out_dir', help='folder for test/*.xml and test.zip')
    parser.add_argument('--provider', default='', help='your institution, shown by the server')
    parser.add_argument('--author', default='', help='your team, shown by the server')
    parser.add_argument('--pluginname', default='FAIR1M', help='name of the method [FAIR1M]')
    parser.add_argument('--time', help='year and month, such as 2024-02 [of today]')
    parser.add_argument('--suffix', default='.tif', help='suffix of the test images [.tif]')
    args = parser.parse_args()
    research = Research(args.provider, args.author, args.pluginname, time=args.time)
    with errors_end_command():
        archive = convert_dota_txt(args.txt_dir, args.img_dir, args.out_dir, research, args.suffix)
    if research.missing:
        print(f'the files state no {" and no ".join(research.missing)}: see --provider, --author')
    print(f'{archive} is to be uploaded as it is at https://www.gaofen-challenge.com/benchmark')


if __name__ == '__main__':
    main()
