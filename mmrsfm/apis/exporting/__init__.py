# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Models as files of ONNX, for programs without PyTorch and for :class:`SceneInferencer`."""

from mmrsfm.apis.exporting.exporter import export_onnx
from mmrsfm.apis.exporting.metadata import OnnxMetadata

__all__ = ['OnnxMetadata', 'export_onnx']
