"""Builds models on the host that serves them: fetch, export, optimise, quantise, prove, release, activate.

`python -m modelbuild STAGE` runs one stage. Importing the package loads nothing but the standard library, and `plan`
needs nothing else either: it runs before the build environment exists.
"""
