#!/bin/sh
# Remove from a virtual environment what never runs in the containers: installers, tests, helpers for training and
# conversion, symbols. The bytecode stays: it is what makes the app ready in seconds on a read-only root.
set -eu

venv=${1:?usage: prune_venv.sh VENV}
site=$(echo "$venv"/lib/python3.*/site-packages)

"$venv/bin/python" -m pip uninstall -qy setuptools pip
rm -rf "$site/pip" "$venv/include" "$venv/share"
# Only the dictionaries that text/analyser.py loads.
rm -f "$site/kiwipiepy_model/multi.dict"

for package in numpy onnxruntime sqlalchemy alembic psycopg; do
    find "$site/$package" -depth -type d \( -name tests -o -name testing -o -name templates \) \
        ! -path "$site/numpy/testing" -exec rm -rf {} +
done
rm -rf "$site/numpy/f2py" "$site/numpy/_core/include" "$site/numpy/_core/lib" "$site/numpy/random/lib"
for folder in backend datasets quantization tools transformers; do
    rm -rf "$site/onnxruntime/$folder"
done
# The Python module has its own copy of the runtime; this one is for programs in C.
rm -f "$site"/onnxruntime/capi/libonnxruntime.so.*
find "$site" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.a' \) -delete
# Vendored libraries (*.libs) carry relocated names in their dynamic section; strip leaves that alone.
find "$site" -type f \( -name '*.so' -o -name '*.so.*' \) -exec strip --strip-unneeded {} +
