# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Converters from the formats in which data is published; one source format a file.

Each module is a pure function that converts, and a small command around it.
"""
