# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Packaging. Configs and tools travel inside the package, in ``mmrsfm/.mim``, where mim looks."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ('configs', 'tools', 'data_converters', 'model-index.yml')


def read_requirements(name: str) -> list[str]:
    """Returns the requirement lines of ``requirements/<name>.txt`` without comments."""
    text = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8')
    lines = (line.split('#')[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def read_version() -> str:
    """Returns ``__version__`` without importing the package, which needs mmengine."""
    namespace: dict = {}
    exec((ROOT / 'mmrsfm' / 'version.py').read_text(encoding='utf-8'), namespace)
    return namespace['__version__']


class BuildWithMim(build_py):
    """Copies configs, tools and the model index into ``mmrsfm/.mim`` of the *built* package.

    The source tree is left as it is; an editable installation reads the top-level folders.
    """

    def run(self) -> None:
        """Builds the package, then adds what mim looks for."""
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib) / 'mmrsfm' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        ignore = shutil.ignore_patterns('__pycache__', '*.pyc')
        for name in SHIPPED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=ignore)
            elif source.exists():
                shutil.copy2(source, target / name)


setup(
    name='mmrsfm',
    version=read_version(),
    description='Remote-sensing foundation models from pretraining to every downstream task',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='mmrsfm contributors',
    license='Apache-2.0',
    license_files=['LICENSE', 'NOTICE'],
    keywords='remote sensing, foundation models, self-supervised learning, OpenMMLab',
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
    python_requires='>=3.11,<3.13',
    packages=find_packages(include=['mmrsfm', 'mmrsfm.*']),
    package_data={'mmrsfm': ['py.typed', 'visualization/*.html']},
    cmdclass={'build_py': BuildWithMim},
    install_requires=read_requirements('torch') + read_requirements('runtime'),
    extras_require={
        'mm': read_requirements('mminstall'),
        'docs': read_requirements('docs'),
        'optional': read_requirements('optional'),
        'tests': read_requirements('tests'),
    },
    zip_safe=False,
)
