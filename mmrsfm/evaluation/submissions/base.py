# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What all writers of benchmark submissions share: a folder that is theirs, and a zip file."""

from __future__ import annotations

import ast
import json
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, print_log

from mmrsfm.engine.atomic_io import atomic_write
from mmrsfm.errors import ConfigError

MANIFEST = '.mmrsfm_submission.json'
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: the same input, the same bytes


class SubmissionFolder:
    """A folder that only this library's writer of one kind of submission writes to.

    A manifest in it says so. A folder that holds anything else is refused; one of an earlier run is
    written anew, and what that run listed and this one does not write is removed.

    Args:
        path: The folder; it is made.
        kind: What is written, e.g. ``'DOTA Task 1'``.

    Raises:
        ConfigError: If the path is a file, or a folder with other content.
    """

    def __init__(self, path: str | Path, kind: str) -> None:
        self.path = Path(path)
        self.kind = kind
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f'the submission cannot go to {self.path}: it is a file')
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / MANIFEST).is_file():
            # Another rank may be making it at this moment: what is hidden does not count.
            others = sorted(p.name for p in self.path.iterdir() if not p.name.startswith('.'))
            # Looked at again: only the manifest comes before the first file of a submission.
            if others and not (self.path / MANIFEST).is_file():
                raise ConfigError(
                    f'{self.path} holds {others[0]!r} and is not the folder of an earlier '
                    'submission: give a new or an empty folder (out_dir in the config, '
                    'tools/test.py --out DIR)'
                )
            self._write([])
        self._former = self._read()

    def finish(self, files: Iterable[Path]) -> None:
        """Notes what was written, and removes what an earlier run had written beyond it.

        Args:
            files: All files of the submission, inside the folder.
        """
        names = sorted(str(file.relative_to(self.path)) for file in files)
        for name in set(self._former) - set(names):
            (self.path / name).unlink(missing_ok=True)
        self._write(names)

    def _read(self) -> list[str]:
        try:
            content = json.loads((self.path / MANIFEST).read_text())
            kind, files = content['kind'], [str(name) for name in content['files']]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f'{self.path / MANIFEST} cannot be read ({error}): remove the folder, or give '
                'another one'
            ) from error
        if kind != self.kind:
            raise ConfigError(
                f'{self.path} holds a submission of another kind ({kind}, not {self.kind}): give '
                'another folder (out_dir in the config, tools/test.py --out DIR)'
            )
        # Names are only ever removed below the folder.
        return [name for name in files if '..' not in Path(name).parts and name[:1] != '/']

    def _write(self, files: list[str]) -> None:
        content = {'kind': self.kind, 'files': files}
        atomic_write(self.path / MANIFEST, json.dumps(content, indent=1).encode())


def file_name(image: str | Path, suffix: str, folders: int = 0) -> str:
    """The name of what is written for an image, relative to the folder of the submission.

    Args:
        image: Path of the image.
        suffix: Of the file that is written.
        folders: How many of the folders above the image stay part of the name.
    """
    path = Path(image)
    above = path.parent.parts[-folders:] if folders else ()
    return str(Path(*(part for part in above if part != path.anchor), f'{path.stem}{suffix}'))


class Submission(BaseMetric):
    """Base of the metrics that write what a benchmark's server takes, and compute no score.

    Used as ``test_evaluator = dict(type='mmrsfm.DOTASubmission')`` by ``tools/test.py``, which
    hands ``--out DIR`` to it. Nothing is written before the first prediction.

    Args:
        out_dir: The folder. ``None``: ``submission`` in the work folder of the run.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: See :class:`mmengine.evaluator.BaseMetric`.
        collect_dir: See :class:`mmengine.evaluator.BaseMetric`.

    Attributes:
        kind: What is written, for messages and the manifest of the folder.
    """

    kind: ClassVar[str] = 'submission'

    def __init__(
        self,
        out_dir: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.out_dir = out_dir
        self._folder: SubmissionFolder | None = None

    @property
    def folder(self) -> Path:
        """The folder; made and checked when it is first asked for in a run."""
        if self._folder is None:
            path = Path(self.out_dir) if self.out_dir is not None else work_dir() / 'submission'
            self._folder = SubmissionFolder(path, self.kind)
        return self._folder.path

    def evaluate(self, size: int) -> dict:
        """See :meth:`mmengine.evaluator.BaseMetric.evaluate`."""
        found = super().evaluate(size)
        self._folder = None  # the next run looks again
        return found

    def finish(self, files: Iterable[Path], what_next: str) -> None:
        """Settles the folder, and says where the result is and what to do with it.

        Args:
            files: All files of the submission.
            what_next: A sentence for the user.
        """
        assert self._folder is not None
        self._folder.finish(files)
        print_log(f'{self.kind}: {what_next}', logger='current')


def work_dir() -> Path:
    """The work folder of the run that this process is in.

    Raises:
        ConfigError: If no run of MMEngine has stated one.
    """
    # Put there by MMEngine's RuntimeInfoHook, on every rank; a metric sees no runner.
    text = str(MessageHub.get_current_instance().runtime_info.get('cfg', ''))
    found = re.search(r'^work_dir *= *(.+)$', text, re.MULTILINE)
    stated: Any = None if found is None else ast.literal_eval(found[1])
    if not isinstance(stated, str):
        raise ConfigError('out_dir is not given, and this run has no work folder to put it in')
    return Path(stated)


def write_zip(path: Path, members: Mapping[str, Path]) -> Path:
    """Zips files, so that the same files give the same bytes.

    Args:
        path: The zip file; it appears when it is complete.
        members: Files by their names in the zip; they are written in the order of the names.

    Returns:
        The path.
    """
    partial = path.with_name(f'.{path.name}.partial')
    with zipfile.ZipFile(partial, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with members[name].open('rb') as source, archive.open(entry, 'w') as target:
                shutil.copyfileobj(source, target)
    partial.replace(path)
    return path
