# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What MkDocs calls while it builds the site (``hooks`` of ``mkdocs.yml``).

The site is ``docs/`` and what the repository holds anyhow: the READMEs of ``configs/`` (their own
pages, at their own paths), every config of ``metafile.yml``, the published numbers, and the
reference from the docstrings. Nothing is copied by hand; a link that works in the repository works
in the site. MkDocs puts this folder on the path while it imports this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from config_pages import configs_page, numbers_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference_pages import commands_page, reference_navigation, reference_pages
from repository_links import CONFIGS_PAGE, RepositoryLinks, expand_includes

REPO = Path(__file__).resolve().parents[2]
# Files of the repository that are pages, besides docs/*.md and the READMEs of configs/.
EXTRA_PAGES = ('CONTRIBUTING.md',)


class _Site:
    """What the events of one build share."""

    links: RepositoryLinks


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the part of the navigation that follows from the packages of mmrsfm."""
    for entry in config.nav or []:
        if list(entry) == ['Reference']:
            entry['Reference'] = [*entry['Reference'], *reference_navigation(REPO)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not in ``docs/``, and the files that pages link to."""
    docs = {f'docs/{file.src_uri}': file.src_uri for file in files.documentation_pages()}
    readmes = sorted(path.relative_to(REPO) for path in (REPO / 'configs').rglob('README.md'))
    added = {path: path for path in (*map(str, readmes), *EXTRA_PAGES)}
    for path in added:
        files.append(File.generated(config, path, abs_src_path=str(REPO / path)))
    generated = {
        CONFIGS_PAGE: configs_page(REPO),
        'configs/numbers.md': numbers_page(REPO),
        'commands.md': commands_page(REPO),
        **reference_pages(REPO),
    }
    for uri, text in generated.items():
        files.append(File.generated(config, uri, content=text))
    _Site.links = RepositoryLinks(REPO, {'README.md': 'index.md', **docs, **added})
    texts = {path: (REPO / path).read_text() for path in (*docs, *added)}
    texts |= {uri: text for uri, text in generated.items() if uri.startswith('configs/')}
    for path, uri in sorted(_Site.links.linked_files(texts).items()):
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=str(REPO / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Puts included sections in, and turns paths of the repository into those of the site."""
    source = _Site.links.repository_path(page.file.src_uri)
    return _Site.links.rewrite(expand_includes(markdown, source, REPO), source)
