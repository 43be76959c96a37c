# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The site of docs/: every page in it, every link leading somewhere, every module documented."""

import io
import logging
import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
pytest.importorskip('material', reason='the site needs requirements/docs.txt')
# Documented in the short build: pages refer to the first, the others are small.
SAMPLE = ('mmrsfm.engine.optimizers.layer_decay', 'mmrsfm.errors')


@pytest.fixture(scope='module')
def tools():
    """The modules of the hook, as MkDocs imports them."""
    sys.path.insert(0, str(REPO / 'tools' / 'docs'))
    import config_pages
    import reference_pages
    import repository_links

    yield config_pages, reference_pages, repository_links
    sys.path.remove(str(REPO / 'tools' / 'docs'))


def build(target):
    """Builds the site strictly; returns what was warned of."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setLevel(logging.WARNING)
    logging.getLogger('mkdocs').addHandler(handler)
    try:
        config = load_config(str(REPO / 'mkdocs.yml'), site_dir=str(target))
        config.plugins.on_startup(command='build', dirty=False)
        build(config)
    finally:
        logging.getLogger('mkdocs').removeHandler(handler)
    return log.getvalue()


def skip(*_, **__):
    """In the place of an event that changes nothing."""


@pytest.fixture(scope='module')
def site(tools, tmp_path_factory):
    """The site with all guides, and a small part of the reference."""
    _, reference, _ = tools
    modules = [m for m in reference.find_modules(REPO) if m.name.startswith(SAMPLE)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('NO_MKDOCS_2_WARNING', '1')
        patch.setattr(reference, 'find_modules', lambda repo: modules)
        # What is searched for is not looked at here.
        patch.setattr('material.plugins.search.plugin.SearchPlugin.on_page_context', skip)
        folder = tmp_path_factory.mktemp('site')
        return folder, build(folder)


class Page(HTMLParser):
    """What a page loads, refers to and can be referred to by."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.refers, self.anchors, self.paragraphs = [], [], set(), []
        self._open = False
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if 'id' in found:
            self.anchors.add(found['id'])
        if tag == 'a' and found.get('href'):
            self.refers.append(found['href'])
        if tag in ('script', 'img', 'iframe') and found.get('src'):
            self.loads.append(found['src'])
        if tag == 'link' and found.get('rel') in ('stylesheet', 'preconnect', 'preload', 'icon'):
            self.loads.append(found['href'])
        if tag == 'p':
            self.paragraphs.append('')
            self._open = True

    def handle_endtag(self, tag):
        self._open = self._open and tag != 'p'

    def handle_data(self, data):
        if self._open:
            self.paragraphs[-1] += data


@pytest.fixture(scope='module')
def pages(site):
    return {path: Page(path) for path in sorted(site[0].rglob('*.html'))}


def test_a_strict_build_has_nothing_to_warn_of(site):
    assert site[1] == ''


def test_every_link_leads_somewhere(site, pages):
    """MkDocs checks the links of pages; here are those of the navigation and of files, too."""
    bad = []
    for path, page in pages.items():
        if path.name == '404.html':
            continue  # its links begin with the address of the site
        for target in page.refers + page.loads:
            place, _, anchor = target.partition('#')
            if re.match(r'[a-z]+:', target):
                continue
            found = (path.parent / place).resolve() if place else path
            found = found / 'index.html' if found.is_dir() else found
            if not found.is_file():
                bad.append(f'{path.relative_to(site[0])}: {target}')
            elif anchor.startswith('__'):
                continue  # Material's own
            elif anchor and found in pages and anchor not in pages[found].anchors:
                bad.append(f'{path.relative_to(site[0])}: {target}')
    assert not bad


def test_nothing_comes_from_elsewhere(site, pages):
    """A page is whole without the network: no fonts, scripts or pictures of other hosts."""
    for path, page in pages.items():
        assert not [target for target in page.loads if re.match(r'(https?:)?//', target)], path
    styles = ''.join(path.read_text() for path in site[0].rglob('*.css'))
    assert not re.findall(r'(?:@import|url\()\s*["\']?(?:https?:)?//', styles)


def test_lists_and_tables_are_shown_as_such(pages):
    """Markdown of the repository's host is more lenient than that of the site."""
    marks = re.compile(r'^(?:[*-] |\|.*\|$|#+ |<!--)', re.MULTILINE)
    bad = {str(path): text for path, page in pages.items() for text in page.paragraphs
           if marks.search(text)}  # fmt: skip
    assert not bad


def test_all_guides_and_methods_are_in_the_navigation(tools):
    text = (REPO / 'mkdocs.yml').read_text()
    named = set(re.findall(r'[\w/-]+\.md', text.partition('\nnav:')[2]))
    docs = {str(path.relative_to(REPO / 'docs')) for path in (REPO / 'docs').rglob('*.md')}
    readmes = {str(path.relative_to(REPO)) for path in (REPO / 'configs').rglob('README.md')}
    assert docs | readmes <= named


def test_the_sidebar_shows_every_page(tools):
    """Material makes the first README.md or index.md of a section its heading: no other entry."""

    def check(entries):
        heads = [page for page in entries if isinstance(page, str)]
        assert heads in ([], entries[:1]), entries
        for entry in entries[len(heads) :]:
            ((title, page),) = entry.items()
            if isinstance(page, list):
                check(page)
            elif re.search(r'(?:^|/)(?:README|index)\.md$', page):
                assert heads, f'{title}: this page would hide behind the heading of its section'

    text = (REPO / 'mkdocs.yml').read_text().partition('\nnav:\n')[2]
    check(yaml.safe_load(text))


def test_every_public_module_is_in_the_reference(tools):
    _, reference, _ = tools
    shown = ''.join(reference.reference_pages(REPO).values())
    listed = subprocess.run(
        ['git', 'ls-files', 'mmrsfm/*.py', 'data_converters/*.py'],
        cwd=REPO, capture_output=True, text=True,
    )  # fmt: skip
    files = listed.stdout.split() if listed.returncode == 0 else []
    for name in files:
        parts = Path(name).with_suffix('').parts
        if parts[-1] != '__init__' and '.mim' not in parts:
            assert f'::: {".".join(parts)}\n' in shown, name
    entries = {next(iter(entry)) for entry in reference.reference_navigation(REPO)}
    assert {'models.backbones', 'datasets.transforms', 'data_converters'} <= entries
    types = reference.reference_pages(REPO)['reference/types.md']
    assert '[`mmrsfm.RVSAViT`][mmrsfm.models.backbones.rvsa_vit.RVSAViT]' in types


def test_every_command_is_described(tools):
    _, reference, _ = tools
    found = reference.find_commands(REPO)
    assert {'tools/train.py', 'tools/slurm_train.sh', 'data_converters/split_dota.py'} <= set(found)
    assert [place for place, text in found.items() if not text] == []
    headings = re.findall('^## (.+)', reference.commands_page(REPO), re.MULTILINE)
    assert headings[0] == 'tools'
    assert len(headings) == len(set(headings))


def test_every_config_and_every_published_number_has_its_row(tools):
    configs, _, _ = tools
    page = configs.configs_page(REPO)
    for path in (REPO / 'configs').rglob('*.py'):
        assert f'({path.relative_to(REPO / "configs")})' in page, path
    numbers = configs.numbers_page(REPO).splitlines()
    for name in yaml.safe_load((REPO / 'model-index.yml').read_text())['Import']:
        for model in yaml.safe_load((REPO / name).read_text())['Models']:
            for result in model['Results'] or []:
                for metric, value in result['Metrics'].items():
                    start = f'| {result["Dataset"]} | {metric} | {value} | '
                    assert [r for r in numbers if r.startswith(start) and model['Name'] in r]


def test_links_are_those_of_the_repository(tools, tmp_path):
    _, _, links = tools
    for place in ('docs/a.md', 'configs/x/README.md', 'configs/x/y/c.py', 'NOTICE', 'docs/b.jpg'):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text('')
    pages = {
        'README.md': 'index.md',
        'docs/a.md': 'a.md',
        'configs/x/README.md': 'configs/x/README.md',
    }
    table = links.RepositoryLinks(tmp_path, pages)
    text = (
        '[x](../configs/x) [y](../configs/x/y) [c](../configs/x/y/c.py) [n](../NOTICE) '
        '[r](../README.md#use) ![b](b.jpg) [u](https://h/x.md) [a](#here)\n'
        '```\n[x](../configs/x)\n```\n'
    )
    assert table.rewrite(text, 'docs/a.md') == (
        '[x](configs/x/README.md) [y](configs/all.md#configs-x-y) [c](configs/x/y/c.py.txt) '
        '[n](NOTICE.txt) [r](index.md#use) ![b](b.jpg) [u](https://h/x.md) [a](#here)\n'
        '```\n[x](../configs/x)\n```\n'
    )  # fmt: skip
    assert table.rewrite('[a](../../docs/a.md#b)', 'configs/x/README.md') == '[a](../../a.md#b)'
    assert table.linked_files({'docs/a.md': text}) == {
        'configs/x/y/c.py': 'configs/x/y/c.py.txt', 'NOTICE': 'NOTICE.txt', 'docs/b.jpg': 'b.jpg',
    }  # fmt: skip


def test_a_section_is_included_with_its_links(tools, tmp_path):
    _, _, links = tools
    (tmp_path / 'README.md').write_text(
        '# Top\nintro\n## A\n[d](docs/d.md)\n```\n# no heading [d](docs/d.md)\n```\n'
        '### A1\nx\n## B\ny\n'
    )
    text = links.expand_includes('<!-- include README.md: A -->\n', 'docs/p.md', tmp_path)
    assert text == '[d](d.md)\n```\n# no heading [d](docs/d.md)\n```\n### A1\nx\n'
    assert links.section((tmp_path / 'README.md').read_text(), '(top)') == 'intro'
    with pytest.raises(ValueError, match=r"docs/p\.md includes README\.md: no heading 'C'"):
        links.expand_includes('<!-- include README.md: C -->', 'docs/p.md', tmp_path)


@pytest.mark.slow
def test_the_whole_site_builds_strictly(tmp_path):
    assert build(tmp_path) == ''
    found = {posixpath.basename(path) for path in (tmp_path / 'reference').iterdir()}
    assert 'mmrsfm.models.backbones' in found
