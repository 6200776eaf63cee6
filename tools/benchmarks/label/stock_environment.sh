#!/bin/sh
# An environment of its own for the stock server: monailabel 0.8.5 wants numpy below 2, so it cannot share one
# with medseg. About 3 GB, a minute when the packages are cached; needs uv, and Python 3.10 or 3.11.
#
#     sh tools/benchmarks/label/stock_environment.sh DIR [options of uv pip install, such as --torch-backend cpu]
#
# Then start-up, memory and the answers of both servers on the same image, in one run:
#
#     MEDSEG_MONAILABEL_PYTHON=DIR/bin/python \
#         python -m pytest -s -m slow tests/serve/monai_label/test_stock_server.py
set -eu
folder=$1
shift
uv venv --python "${PYTHON:-3.11}" "$folder"
# Unpinned, resolvers silently choose monailabel 0.1.0; setuptools has pkg_resources only below 81.
uv pip install --python "$folder/bin/python" "$@" \
    'monailabel==0.8.5' 'numpy<2' 'setuptools<81' 'torch==2.13.*' 'torchvision==0.28.*'
