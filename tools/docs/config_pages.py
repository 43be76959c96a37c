# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pages made from ``model-index.yml`` and the ``metafile.yml`` of each method."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml
from repository_links import folder_anchor

Model = dict[str, Any]

# Published numbers whose settings are not known well enough to stand beside a config.
SECTIONS = {
    'mars': 'Published numbers',
    'mp_mae': 'Published results',
    'sar_w_mixmae': 'Few labels',
}

CONFIGS = """# All configs

{total} configs, by folder. A config holds what differs from its `_base_` files;
`python tools/print_config.py CONFIG` prints the whole of one. Names are
`{{model}}_{{init or pretext}}_{{gpus}}xb{{batch}}-{{schedule}}_{{dataset}}-{{size}}.py`. Any of
them is a base for a config of yours: `_base_ = 'mmrsfm::mtp/dior/....py'`.

"""

NUMBERS = """# Published numbers

What the authors of the methods have published for the configs that are here, from the
`metafile.yml` of each method. **None of these has been reproduced with this library**: no weights
could be fetched and no GPU cluster was at hand. What has been compared with the published code is
arithmetic: losses, latents, predictions and gradients of small models.

Numbers that were measured here are on small models and small data, to show that every step works:
[the quickstart](../docs/quickstart.md) and [one small model for each task](mtp/demo/README.md).

"""


def load_models(repo: Path) -> dict[str, list[Model]]:
    """The models of each method, in the order of ``model-index.yml``.

    Args:
        repo: The repository.

    Returns:
        Name of the collection -> its models, as in the metafile.
    """
    index = yaml.safe_load((repo / 'model-index.yml').read_text())
    found = {}
    for path in index['Import']:
        content = yaml.safe_load((repo / path).read_text())
        found[content['Collections'][0]['Name']] = content['Models']
    return found


def _schedule(model: Model) -> str:
    about = model['Metadata']
    for key, unit in (('Epochs', 'epochs'), ('Iterations', 'iterations')):
        if key in about:
            return f'{about[key]:,} {unit}'
    return ''


def _row(cells: list[str]) -> str:
    return f'| {" | ".join(cells)} |'


def configs_page(repo: Path) -> str:
    """A table of configs for each folder below ``configs/``."""
    models = {model['Config']: model for group in load_models(repo).values() for model in group}
    folders: dict[str, list[Path]] = defaultdict(list)
    for path in sorted((repo / 'configs').rglob('*.py')):
        folders[str(path.parent.relative_to(repo))].append(path)
    order = sorted(folders, key=lambda name: ('_base_' in name, name))
    total = sum(len(paths) for name, paths in folders.items() if '_base_' not in name)
    lines = [CONFIGS.format(total=total)]
    for folder in order:
        lines += [f'## {folder} {{#{folder_anchor(folder)}}}', '']
        rows = [['config', 'data', 'schedule', 'batch']]
        for path in folders[folder]:
            place = str(path.relative_to(repo))
            link = f'[{path.stem}]({posixpath.relpath(place, "configs")})'
            model = models.get(place)
            cells = [link, '', '', '']
            if model is not None:
                about = model['Metadata']
                cells[1:] = (
                    about['Training Data'],
                    _schedule(model),
                    str(about.get('Batch Size', '')),
                )
            rows.append(cells)
        if not any(any(cells[1:]) for cells in rows[1:]):
            lines += [f'* {cells[0]}' for cells in rows[1:]]
        else:
            rows.insert(1, ['---'] * 4)
            lines += map(_row, rows)
        lines.append('')
    return '\n'.join(lines)


def numbers_page(repo: Path) -> str:
    """A table of published results for each task, then what the READMEs of other methods state."""
    tasks: dict[str, list[list[str]]] = defaultdict(list)
    for name, group in load_models(repo).items():
        for model in group:
            link = f'[{model["Name"]}]({posixpath.relpath(model["Config"], "configs")})'
            for result in model['Results'] or []:
                for metric, value in result['Metrics'].items():
                    row = [result['Dataset'], metric, str(value), name, link]
                    tasks[result['Task']].append(row)
    lines = [NUMBERS]
    for task, rows in tasks.items():
        lines += [f'## {task}', '', _row(['data', 'metric', 'published', 'method', 'config'])]
        lines += [_row(['---'] * 5), *map(_row, sorted(rows, key=lambda row: row[0])), '']
    for folder, heading in SECTIONS.items():
        title = (repo / 'configs' / folder / 'README.md').read_text().partition('\n')[0]
        lines += [f'#{title}', '', f'From [its page]({folder}/README.md).', '']
        lines += [f'<!-- include configs/{folder}/README.md: {heading} -->', '']
    return '\n'.join(lines)
