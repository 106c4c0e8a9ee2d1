#!/usr/bin/env bash
# prepare.sh DATA: fill .carry/ (some 60 MB, ignored by git) with what run.sh needs on a machine with a GPU that has
# torch, timm and the usual scientific packages, and no network. DATA is a folder with her2st/ (ST-imgs, ST-cnts,
# ST-spotfiles of C4, C5, C6) and visium_mouse_colon/ (Parigi et al. 2022). Run it in the project's root, in its
# environment; MACHINE_PYTHON is the other machine's version.
set -euo pipefail
data=$(realpath "$1")
rm -rf .carry && mkdir -p .carry/wheels .carry/data/her2st/{ST-imgs/C,ST-cnts,ST-spotfiles}
python -m pip download -q --no-deps --only-binary=:all: --python-version "${MACHINE_PYTHON:-3.12}" --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
  --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d .carry/wheels \
  anndata scanpy openslide-bin openslide-python pydantic pydantic-core annotated-types typing-inspection tomli-w \
  beartype array-api-compat natsort legacy-api-wrap session-info2 zarr numcodecs donfig google-crc32c umap-learn \
  pynndescent fast-array-utils scverse-misc pydantic-settings python-dotenv msgspec igraph texttable
# the project itself is not installed there, and asks for its version
version=$(python -c 'import genedml_cli; print(genedml_cli.__version__)')
mkdir -p ".carry/genedml-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: genedml\nVersion: %s\n' "$version" >".carry/genedml-$version.dist-info/METADATA"
for section in C4 C5 C6; do
  cp -r "$data/her2st/ST-imgs/C/$section" .carry/data/her2st/ST-imgs/C/
  cp "$data/her2st/ST-cnts/$section.tsv.gz" .carry/data/her2st/ST-cnts/
  cp "$data/her2st/ST-spotfiles/${section}_selection.tsv" .carry/data/her2st/ST-spotfiles/
done
python tests/gpu/pieces.py pack "$data/visium_mouse_colon" .carry/data
du -sh .carry
